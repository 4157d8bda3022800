"""Markdown tables from recorded results.

    python -m benchmarks report benchmarks/results/step-….json results/paper-….json

A speedup is printed only of what the same record shows to be the same computation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.common.command import parser_of
from benchmarks.common.record import read_of, write
from benchmarks.measure.checks import UncheckedError
from benchmarks.report import studies as study_tables
from benchmarks.report.demo import demo_table
from benchmarks.report.distillation import distillation_table
from benchmarks.report.gestures import gestures_table
from benchmarks.report.plots import PLOTS
from benchmarks.report.reading import augment_table, data_table
from benchmarks.report.study import pilot_table, study_table
from benchmarks.report.tables import Record, baseline_table, step_table

# By the kind that a record says it is of
TABLES: dict[str, Callable[[Record], str]] = {
    "training step": step_table,
    "fine-tuning step": step_table,
    "baselines": baseline_table,
    "data speed": data_table,
    "distillation": distillation_table,
    "augmentation": augment_table,
    "demo seeds": demo_table,
    "gestures": gestures_table,
    "study": study_table,
    "study pilot": pilot_table,
    **study_tables.TABLES,
}


def finish(record: Record, path: Path) -> int:
    """Writes a record, and beside it the table and the plot of its kind, made from it alone.

    Returns:
        The exit status: 1 where the record does not show equality; then it stands alone.
    """
    write(record, path)
    try:
        table = TABLES[record["kind"]](record)
    except UncheckedError as error:
        print(f"{path}: no table and no plot: {error}", file=sys.stderr)
        return 1
    path.with_suffix(".md").write_text(table + "\n", encoding="utf-8")
    PLOTS[record["kind"]](record, path.with_suffix(".png"))
    print(f"\n{table}\n\nwritten: {path}, and .md and .png beside it")
    return 0


def arguments() -> argparse.ArgumentParser:
    """The parser of ``report``."""
    parser = parser_of("report", __doc__, out=False)
    parser.add_argument("records", type=Path, nargs="+", help="JSON files of results")
    return parser


def main(argv: Sequence[str]) -> int:
    """Prints the tables.

    Returns:
        1 where a record does not show equality.
    """
    parser = arguments()
    for path in parser.parse_args(argv).records:
        try:
            record = read_of(TABLES, path)
        except ValueError as error:
            parser.error(str(error))
        try:
            print(TABLES[record["kind"]](record) + "\n")
        except UncheckedError as error:
            print(f"{path}: no speedup is printed: {error}", file=sys.stderr)
            return 1
    return 0
