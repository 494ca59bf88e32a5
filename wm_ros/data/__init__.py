"""Recordings and simulations as samples in time order."""
