"""Reading videos: who reads, which videos, how fast."""
