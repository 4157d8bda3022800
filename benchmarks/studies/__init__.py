"""Training steps compared: one study a file."""
