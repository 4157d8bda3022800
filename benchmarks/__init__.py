"""What is timed, against what: baselines, drivers, and results with their generators."""
