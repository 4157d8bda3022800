"""What is compared: ours and the baselines, each a training step in three phases."""
