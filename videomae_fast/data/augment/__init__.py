"""What fine-tuning changes in a clip at random."""
