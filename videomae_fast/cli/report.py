"""``videomae-fast report``: what a run's folder tells, as one HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path

from videomae_fast.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the --output folder of a run, finished or going on")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the HTML file (default: RUN/report.html)"
    )


def run(args: argparse.Namespace) -> int:
    output = args.output or args.run / "report.html"
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder: name a file")
    from videomae_fast.report import read_run, write_report

    record = read_run(args.run)
    for told in record.unreadable:
        print(f"left out: {told}")
    print(write_report(record, output))
    return 0
