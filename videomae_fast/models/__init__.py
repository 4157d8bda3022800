"""Sizes and models: thin modules over the ops."""
