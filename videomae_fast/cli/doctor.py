"""``videomae-fast doctor``: what this machine has, and why something is missing."""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Exit code 1 where something that should work does not; a missing option is no error."""
    from videomae_fast.doctor import as_dict, as_text, examine, healthy

    report = examine()
    print(json.dumps(as_dict(report), indent=2) if args.json else as_text(report))
    return 0 if healthy(report) else 1
