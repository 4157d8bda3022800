"""The papers' tables in miniature: what pre-training, its masks and its decoder are worth."""
