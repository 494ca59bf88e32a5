"""Hands of people in video: found in each image, told left from right over time, given as `HandTrajectory`."""
