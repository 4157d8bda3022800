"""Runs on many GPUs, planned by formulas and counted on processes; and stores of many clips."""
