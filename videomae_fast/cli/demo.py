"""``videomae-fast demo``: videos, a small pre-trained model and pictures, in minutes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from videomae_fast.cli.list_options import check_folder
from videomae_fast.errors import UsageError

MOST_THREADS = 4
STEPS = 2000
STEPS_PER_MINUTE = 600
"""What `--minutes` stood for, the former spelling of `--steps`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--videos",
        type=Path,
        metavar="FOLDER",
        help="pre-train on the videos in this folder and those below it, instead of rendered ones",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("demo"),
        metavar="DIR",
        help="folder for all that is made; a demo that was stopped goes on there (default: demo)",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--steps",
        type=int,
        default=STEPS,
        metavar="N",
        help="length of the pre-training in optimizer steps; two CPU cores do 1,000 a "
        f"minute or more (default: {STEPS})",
    )
    length.add_argument("--minutes", type=float, metavar="M", help=argparse.SUPPRESS)
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of the rendered videos, the weights, crops and masks (default: 0)",
    )


def run(args: argparse.Namespace) -> int:
    steps: int = args.steps
    if args.minutes is not None:
        if not 0 < args.minutes < float("inf"):
            raise UsageError(f"--minutes must be more than 0, not {args.minutes:g}")
        steps = round(args.minutes * STEPS_PER_MINUTE)
        told = (
            f"--minutes {args.minutes:g} is now --steps {steps}; the next version lacks --minutes"
        )
        print(f"warning: {told}", file=sys.stderr)
    if steps < 1:
        raise UsageError(f"--steps must be 1 or more, not {steps}")
    if args.seed < 0:
        raise UsageError(f"--seed must be 0 or more, not {args.seed}")
    check_folder("--output", args.output)
    import torch

    from videomae_fast.demo import run as demo
    from videomae_fast.demo.closing import what_to_look_at
    from videomae_fast.demo.settings import scale_of

    # A model this small is slower on more: the threads wait for each other.
    torch.set_num_threads(min(torch.get_num_threads(), MOST_THREADS))
    done = demo.run_demo(args.output, scale=scale_of(steps, args.seed), videos=args.videos)
    print("\n" + "\n".join(what_to_look_at(done)))
    return 0
