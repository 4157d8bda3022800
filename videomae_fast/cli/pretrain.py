"""``videomae-fast pretrain``: the options are the fields of a configuration."""

from __future__ import annotations

import argparse
import sys

from videomae_fast.cli.run_options import (
    add_run_arguments,
    check_output,
    finished,
    parse_source,
    run_config,
    say,
)
from videomae_fast.recipes.catalogue import find
from videomae_fast.recipes.schema import PretrainConfig

__all__ = ["add_arguments", "config_from", "parse_source", "run"]

DEFAULT_RECIPE = "vit_b_hybrid"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s --recipe NAME --data LIST --output DIR [options]"
    parser.add_argument("--show-recipe", action="store_true", help=argparse.SUPPRESS)
    add_run_arguments(parser, PretrainConfig, DEFAULT_RECIPE)


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Returns:
        0, or 128 + the number of the signal that stopped the run.

    Raises:
        VideoMAEFastError: as :func:`videomae_fast.training.loop.run`.
    """
    if args.show_recipe:
        print(f"--show-recipe is now: videomae-fast recipes show {args.recipe}", file=sys.stderr)
        print(find(PretrainConfig.task, args.recipe).read_text(encoding="utf-8"), end="")
        return 0
    config = config_from(args)
    output = check_output(args)
    from videomae_fast.tasks.pretraining import pretrain

    return finished(lambda: pretrain(config, output=output, resume=args.resume, log=say))


def config_from(args: argparse.Namespace) -> PretrainConfig:
    """The recipe's configuration with the options that were given.

    Raises:
        UsageError: unknown recipe, bad option value, or a list that is not there.
    """
    return run_config(
        PretrainConfig,
        args,
        format="pretrain",
        line="path 0 -1",
        of="video (videomae-fast list FOLDER > train.csv makes one)",
    )
