"""The demo: procedural videos, a small model pre-trained on them, and pictures of the result."""
