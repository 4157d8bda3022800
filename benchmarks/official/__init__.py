"""The official computation, step and reading, transcribed."""
