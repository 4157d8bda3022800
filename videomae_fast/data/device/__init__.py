"""What is done to clips on the training device: decoding, cropping, and the hand-over."""
