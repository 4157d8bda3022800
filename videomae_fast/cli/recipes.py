"""``videomae-fast recipes``: the recipes that come with the package, and their files."""

from __future__ import annotations

import argparse
import sys

from videomae_fast.errors import UsageError, did_you_mean
from videomae_fast.recipes.catalogue import names, recipe
from videomae_fast.recipes.kinds import KINDS
from videomae_fast.recipes.load import load
from videomae_fast.recipes.multi_view import TestConfig
from videomae_fast.recipes.plan import FOLDER, read_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [show NAME]"
    parser.add_argument(
        "action",
        nargs="?",
        choices=("list", "show"),
        default="list",
        help="list: name, model, data, cost and score of each; show: print the file of one, to be "
        "copied and changed (default: list)",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the recipe to show")


def run(args: argparse.Namespace) -> int:
    """Prints the table, or a recipe's file.

    Raises:
        UsageError: no such recipe, or none named.
    """
    if (args.action == "show") != (args.name is not None):
        raise UsageError("give `recipes` alone for all, or `recipes show NAME` for the file of one")
    if args.action == "show":
        text = recipe(task_of(args.name), args.name).file.read_text(encoding="utf-8")
        sys.stdout.write(text)
    else:
        print(table())
    return 0


def task_of(name: str) -> str:
    """The task that a recipe is for.

    Raises:
        UsageError: there is none of this name; says what was meant.
    """
    for task in (*KINDS, FOLDER):
        if name in names(task):
            return task
    every = [one for task in (*KINDS, FOLDER) for one in names(task)]
    raise UsageError(f"no recipe {name!r}{did_you_mean(name, every)}; there are {', '.join(every)}")


def table() -> str:
    """A row per recipe and plan: name, task, model, data, cost, score."""
    rows = [["name", "task", "model", "data", "cost", "expected score"]]
    models: dict[str, tuple[str, str]] = {
        name: (task, load(kind, name).model.size)
        for task, kind in KINDS.items()
        for name in names(task)
    }
    models |= {name: (FOLDER, _size(name)) for name in names(FOLDER)}
    for name, (task, size) in models.items():
        facts = recipe(task, name).facts
        told = [facts[key].partition(";")[0] for key in ("data", "cost", "expected")]
        rows.append([name, task, size, *told])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _size(plan: str) -> str:
    """The model that a plan trains."""
    configs = (stage.config for stage in read_plan(plan).stages)
    return next(config.model.size for config in configs if not isinstance(config, TestConfig))
