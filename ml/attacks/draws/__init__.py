"""Attacks on draws: what a stake can do to be drawn more often. Pure functions of integers."""
