"""A small labelled set by folds: pre-trained on its own clips, from scratch, and a linear probe."""
