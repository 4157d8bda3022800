"""The processes of a run: what they share, and how they fail and end together."""
