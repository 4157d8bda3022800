"""Processes that read ahead of training: what they are asked, and what becomes of it."""
