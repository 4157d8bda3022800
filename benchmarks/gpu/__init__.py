"""What a session on a machine with a GPU needs besides the benchmarks themselves."""
