"""Layouts of weights: functions from state dict to state dict, each with its inverse.

The names of our models are the official ones. Every other layout is a change of names
(:mod:`.names`) and, for Hugging Face's, of packed matrices.
"""
