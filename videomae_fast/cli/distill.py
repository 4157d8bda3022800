"""``videomae-fast distill``: the options are the fields of a configuration."""

from __future__ import annotations

import argparse

from videomae_fast.cli.run_options import add_run_arguments, check_output, finished, run_config, say
from videomae_fast.errors import UsageError
from videomae_fast.recipes.distillation import DistillConfig

DEFAULT_RECIPE = "vit_b_k710_from_g"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "%(prog)s --recipe NAME --teacher WEIGHTS --init WEIGHTS --data LIST --validation LIST "
        "--output DIR [options]"
    )
    add_run_arguments(parser, DistillConfig, DEFAULT_RECIPE)


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Returns:
        0, or 128 + the number of the signal that stopped the run.

    Raises:
        VideoMAEFastError: as :func:`videomae_fast.training.loop.run`.
    """
    config = config_from(args)
    output = check_output(args)
    from videomae_fast.tasks.distillation import distill

    return finished(lambda: distill(config, output=output, resume=args.resume, log=say))


def config_from(args: argparse.Namespace) -> DistillConfig:
    """The recipe's configuration with the options that were given.

    Raises:
        UsageError: unknown recipe, bad option value, a list that is not there, or no teacher.
    """
    config = run_config(
        DistillConfig,
        args,
        format="labels",
        line="path label",
        of="video (videomae-fast list FOLDER --labels --classes classes.txt > train.csv makes one)",
    )
    if config.distillation.teacher is None:
        raise UsageError(
            "--teacher is missing: name the teacher's weights, a classifier in any layout that "
            "convert reads, or the folder of a fine-tuning run"
        )
    return config
