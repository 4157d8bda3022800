"""What a model learnt, to look at: reconstructions of masked videos, and loss curves."""
