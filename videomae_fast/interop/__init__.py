"""Weights of the official code and of other libraries."""
