"""Equality, times within a budget, peak memory."""
