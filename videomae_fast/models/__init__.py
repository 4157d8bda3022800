"""Sizes, models and losses: thin modules over the ops."""
