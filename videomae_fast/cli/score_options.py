"""Options that the commands which test a model share."""

from __future__ import annotations

import argparse

from videomae_fast.errors import UsageError


def add_trained_arguments(group: argparse._ActionsContainer) -> None:
    """What official weights don't say: the clips that their positions are for, and the heads."""
    group.add_argument(
        "--trained-frames", type=int, metavar="N",
        help="clip length that official weights' positions are for (default: 16)",
    )  # fmt: skip
    group.add_argument(
        "--trained-image-size", type=int, metavar="N",
        help="clip size that official weights' positions are for (default: 224)",
    )  # fmt: skip
    group.add_argument(
        "--heads", type=int, metavar="N",
        help="attention heads, where the weights don't say it (default: the official size's)",
    )  # fmt: skip


def add_work_arguments(group: argparse._ActionsContainer) -> None:
    """How the work is done; what comes out is the same."""
    group.add_argument(
        "--workers", type=int, default=4, metavar="N", help="loader processes (default: 4)"
    )
    group.add_argument("--decoder", default="pyav", metavar="NAME", help="pyav, decord, torchcodec")
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    group.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    group.add_argument(
        "--time-limit", type=float, default=120.0, metavar="SECONDS", help="for one video"
    )


def check_counts(args: argparse.Namespace, *names: str) -> None:
    """Raises UsageError for an option that is given and not at least 1."""
    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be 1 or more, not {value}")
