"""What is timed, against what: baselines, drivers, and results with their generators."""

from benchmarks.former_names import install

install()
