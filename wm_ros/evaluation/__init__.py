"""Scoring predictions against what then happened."""
