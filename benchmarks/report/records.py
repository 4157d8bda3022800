"""Markdown tables from recorded results.

    python -m benchmarks report benchmarks/results/step-….json results/paper-….json

A speedup is printed only of what the same record shows to be the same computation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.common.record import read
from benchmarks.measure.checks import UncheckedError
from benchmarks.report import studies as study_tables
from benchmarks.report.reading import data_table
from benchmarks.report.tables import Record, baseline_table, step_table

# By the kind that a record says it is of
TABLES: dict[str, Callable[[Record], str]] = {
    "training step": step_table,
    "baselines": baseline_table,
    "data speed": data_table,
    **study_tables.TABLES,
}


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks report", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("records", type=Path, nargs="+", help="JSON files of results")
    for path in parser.parse_args(argv).records:
        record = read(path)
        if record["kind"] not in TABLES:
            parser.error(f"{path} is of {record['kind']!r}; tables are made of {', '.join(TABLES)}")
        table = TABLES[record["kind"]]
        try:
            print(table(record) + "\n")
        except UncheckedError as error:
            print(f"{path}: no speedup is printed: {error}", file=sys.stderr)
            return 1
    return 0
