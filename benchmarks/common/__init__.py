"""What all benchmarks share: the workload, and what every record says."""
