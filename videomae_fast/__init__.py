"""VideoMAE and VideoMAE V2 pre-training, fast."""
