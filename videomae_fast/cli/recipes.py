"""``videomae-fast recipes``: the recipes that come with the package, and their files."""

from __future__ import annotations

import argparse
import sys

from videomae_fast.errors import UsageError
from videomae_fast.recipes.catalogue import names, recipe
from videomae_fast.recipes.load import load
from videomae_fast.recipes.schema import PretrainConfig


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
        text = recipe(PretrainConfig.task, args.name).file.read_text(encoding="utf-8")
        sys.stdout.write(text)
    else:
        print(table())
    return 0


def table() -> str:
    """A row per recipe: name, model, data, cost, score."""
    rows = [["name", "model", "data", "cost", "expected score"]]
    for name in names(PretrainConfig.task):
        facts = recipe(PretrainConfig.task, name).facts
        told = [facts[key].partition(";")[0] for key in ("data", "cost", "expected")]
        rows.append([name, load(PretrainConfig, name).model.size, *told])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
