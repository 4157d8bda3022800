"""``videomae-fast finetune``: the options are the fields of a configuration."""

from __future__ import annotations

import argparse

from videomae_fast.cli.run_options import add_run_arguments, check_output, finished, run_config, say
from videomae_fast.recipes.classification import FinetuneConfig

DEFAULT_RECIPE = "vit_b_k400_ft"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "%(prog)s --recipe NAME --init WEIGHTS --data LIST --validation LIST --output DIR [options]"
    )
    add_run_arguments(parser, FinetuneConfig, DEFAULT_RECIPE)


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Returns:
        0, or 128 + the number of the signal that stopped the run.

    Raises:
        VideoMAEFastError: as :func:`videomae_fast.training.loop.run`.
    """
    config = config_from(args)
    output = check_output(args)
    from videomae_fast.tasks.classification import finetune

    return finished(lambda: finetune(config, output=output, resume=args.resume, log=say))


def config_from(args: argparse.Namespace) -> FinetuneConfig:
    """The recipe's configuration with the options that were given.

    Raises:
        UsageError: unknown recipe, bad option value, or a list that is not there.
    """
    return run_config(
        FinetuneConfig,
        args,
        format="labels",
        line="path label",
        of="video (videomae-fast list FOLDER --labels --classes classes.txt > train.csv makes one)",
    )
