"""``videomae-fast detect``: trains and tests detectors of actions."""

from __future__ import annotations

import argparse

from videomae_fast.cli import detect_test
from videomae_fast.cli.run_options import add_run_arguments, check_output, finished, run_config, say
from videomae_fast.recipes.detection import DetectConfig

DEFAULT_RECIPE = "vit_b_ava"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The two commands, each with its own options."""
    parser.usage = "%(prog)s train|test ..."
    actions = parser.add_subparsers(dest="action", metavar="train|test", required=True)
    train = actions.add_parser(
        "train",
        help="train a detector on annotated key frames; resumes where it was stopped",
        description="Train a detector on annotated key frames; resumes where it was stopped.",
        allow_abbrev=False,
    )
    train.usage = (
        "%(prog)s --recipe NAME --init WEIGHTS --data LIST --validation LIST --output DIR [options]"
    )
    add_run_arguments(train, DetectConfig, DEFAULT_RECIPE)
    test = actions.add_parser(
        "test",
        help="score a detector: mAP, a table of actions, detections as csv, pictures",
        description="Score a detector: mAP, a table of actions, detections as csv, pictures.",
        allow_abbrev=False,
    )
    detect_test.add_arguments(test)
    for one in (train, test):
        one.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Returns:
        0, or 128 + the number of the signal that stopped a run.

    Raises:
        VideoMAEFastError: as :func:`videomae_fast.tasks.detection.training.train_detector` and
            :func:`videomae_fast.tasks.detection.testing.score_detector`.
    """
    if args.action == "test":
        return detect_test.run(args)
    config = config_from(args)
    output = check_output(args)
    from videomae_fast.tasks.detection.training import train_detector

    return finished(lambda: train_detector(config, output=output, resume=args.resume, log=say))


def config_from(args: argparse.Namespace) -> DetectConfig:
    """The recipe's configuration with the options that were given.

    Raises:
        UsageError: unknown recipe, bad option value, or a list that is not there.
    """
    return run_config(
        DetectConfig,
        args,
        format=None,
        line="video,timestamp,x1,y1,x2,y2,class",
        of="action of a person (AVA's csv), or JSON with images and annotations",
    )
