"""Plans of runs on many GPUs, by formulas: memory, bytes moved, step time."""
