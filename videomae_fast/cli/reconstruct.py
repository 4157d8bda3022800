"""``videomae-fast reconstruct``: a picture and an animation of what a model makes of a video."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from videomae_fast.cli.list_options import check_folder
from videomae_fast.cli.options import add_default
from videomae_fast.errors import UsageError
from videomae_fast.recipes.fields import settings
from videomae_fast.recipes.schema import PretrainConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        type=Path,
        help="the output folder of a run (its newest checkpoint is taken), one of its checkpoint "
        "folders, or a model.safetensors of one",
    )
    parser.add_argument("video", type=Path, help="a video file")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for <video>.png, <video>.gif and <video>.json (the numbers and the settings)",
    )
    mask = parser.add_argument_group("what is hidden")
    fields = settings(PretrainConfig)
    add_default(mask, fields["masks.encoder"])
    add_default(mask, fields["masks.encoder_ratio"], "--mask-ratio")
    mask.add_argument(
        "--seed", type=int, default=0, metavar="N", help="which mask is drawn (default: 0)"
    )
    clip = parser.add_argument_group("which frames")
    clip.add_argument(
        "--start", type=int, metavar="N", help="first frame (default: the clip is in the middle)"
    )
    add_default(clip, fields["data.stride"])
    add_default(clip, fields["data.decoder"])


def run(args: argparse.Namespace) -> int:
    check(args)
    from videomae_fast.masks import MaskSpec
    from videomae_fast.pictures.showcase import show_reconstruction
    from videomae_fast.tasks.trained import load_model

    try:
        spec = MaskSpec(encoder=args.encoder_mask, encoder_ratio=args.mask_ratio, decoder="none")
    except ValueError as error:
        raise UsageError(f"--mask-ratio: {error}") from None
    model, _ = load_model(args.checkpoint)
    shown = show_reconstruction(
        model,
        args.video,
        args.output,
        spec=spec,
        seed=args.seed,
        start=args.start,
        stride=args.stride,
        decoder=args.decoder,
        settings={"checkpoint": str(args.checkpoint)},
    )
    print(json.dumps(shown.numbers))
    for what, path in (("picture", shown.picture), ("animation", shown.animation)):
        print(f"{what:<10} {path}")
    return 0


def check(args: argparse.Namespace) -> None:
    """Raises UsageError for what can be seen without loading anything."""
    if not args.checkpoint.exists():
        raise UsageError(
            f"{args.checkpoint}: no such checkpoint; give the output folder of a run, a folder "
            "like OUTPUT/checkpoints/step-00001000, or the model.safetensors in one"
        )
    if not args.video.is_file():
        raise UsageError(f"{args.video}: no such video file")
    check_folder("--output", args.output)
    if args.start is not None and args.start < 0:
        raise UsageError(f"--start must be 0 or more, not {args.start}")
