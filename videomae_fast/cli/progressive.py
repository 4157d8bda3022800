"""``videomae-fast progressive``: the stages of a plan, from pre-training to a table of scores."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from videomae_fast.cli.list_options import check_folder
from videomae_fast.cli.run_options import say
from videomae_fast.errors import UsageError
from videomae_fast.recipes.catalogue import names
from videomae_fast.recipes.plan import FOLDER, Plan, read_plan

if TYPE_CHECKING:
    from videomae_fast.tasks.progressive.table import Row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s PLAN --output DIR [--dry-run] [--set NAME=VALUE ...]"
    parser.add_argument(
        "plan",
        metavar="PLAN",
        help="a TOML file of stages, or one of the package's by name (videomae-fast recipes show "
        f"NAME > plan.toml). There are: {', '.join(names(FOLDER))}",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for the stages' folders and the table"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="say what each stage is going to do, with clips, steps and rates, and end; 1 where "
        "one could not run",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a field of every stage that has it, as in run.device=cpu, or of one, as in "
        "k400.optim.base_lr=1e-3; repeat it for several",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Returns:
        0; 1 where a dry run found what is in the way; or 128 + the number of the signal that
        stopped the run.

    Raises:
        VideoMAEFastError: as :func:`videomae_fast.tasks.progressive.chain.run_plan`.
    """
    plan = read_plan(args.plan, args.set)
    if args.output is None:
        raise UsageError("--output is missing: name the folder for the stages and the table")
    output: Path = args.output
    check_folder("--output", output)
    if args.dry_run:
        return _tell(plan, output)
    from videomae_fast.tasks.progressive.chain import run_plan
    from videomae_fast.tasks.progressive.table import as_text
    from videomae_fast.training.errors import InterruptedRunError

    try:
        rows = run_plan(plan, output, log=say, after=lambda found: _draw(plan, output, found))
    except InterruptedRunError as stopped:
        print(stopped, file=sys.stderr)
        return stopped.exit_code
    if rows:
        say(as_text(rows).rstrip())
        say(f"tables and picture in {output}")
    return 0


def _tell(plan: Plan, output: Path) -> int:
    """Prints the outlook; 1 where something is in the way of a stage."""
    from videomae_fast.tasks.progressive.chain import records
    from videomae_fast.tasks.progressive.flow import check_flow
    from videomae_fast.tasks.progressive.outlook import outlooks

    check_flow(plan)
    known = records(plan, output)
    problems = 0
    for number, one in enumerate(outlooks(plan), 1):
        record = known.get(one.stage)
        state = "" if record is None else (
            ", is finished" if record.outcome is not None else ", was begun"
        )  # fmt: skip
        say(f"{number}. {one.stage}{state}")
        for line in one.lines:
            say(f"   {line}")
        if one.problem is not None:
            problems += 1
            say(f"   in the way: {one.problem}")
    return 1 if problems else 0


def _draw(plan: Plan, output: Path, rows: Sequence[Row]) -> None:
    """The picture, where a stage has an accuracy."""
    from videomae_fast.pictures.stage_scores import Bar, save_stage_scores
    from videomae_fast.tasks.validation import History

    bars, curves = [], {}
    for row in rows:
        for kind, scores in (("validation", row.validation), ("test", row.test)):
            if scores is not None and scores.top1 is not None:
                bars.append(Bar(row.stage, kind, scores.top1))
        epochs = History(output / row.stage).epochs
        curve = [(one.step / row.steps, one.weights.top1) for one in epochs if row.steps]
        if curve:
            curves[row.stage] = [(share, top) for share, top in curve if top is not None]
    if bars:
        save_stage_scores(output / "results.png", bars, curves, title=plan.file.stem)
