"""``videomae-fast features``: features of frozen models, a file per video."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from videomae_fast.cli.executor_options import (
    add_shard_arguments,
    check_shard_arguments,
    ray_executor,
)
from videomae_fast.cli.list_options import check_folder
from videomae_fast.cli.options import add_default, device_named
from videomae_fast.errors import UsageError
from videomae_fast.recipes.fields import settings
from videomae_fast.recipes.schema import PretrainConfig
from videomae_fast.recipes.source import BY_OPTION

if TYPE_CHECKING:
    from videomae_fast.data.shards import Shard
    from videomae_fast.evaluation.extraction import Clip, Outcome
    from videomae_fast.evaluation.features import FeatureSettings
    from videomae_fast.models.config import MAEConfig

# Set by a preset, so given without one only
_PRESET: Final = ("stride", "length", "frame_stride", "size", "fit", "pixels", "pooling", "layer")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "weights",
        type=Path,
        metavar="WEIGHTS",
        help="a classifier or a pre-trained model, in any layout that convert reads",
    )
    parser.add_argument(
        "videos",
        type=Path,
        metavar="VIDEOS_OR_LIST",
        help="a video file, a folder of them (and of folders), or a data list",
    )
    parser.add_argument(
        "output",
        type=Path,
        metavar="OUT",
        help="folder for <video>.npy, float32 [windows, ...], and <video>.json about it; what is "
        "there already is not made again",
    )
    parser.add_argument(
        "--preset",
        choices=("thumos14", "fineaction"),
        help="exactly the released features for temporal detection: 16 frames every 4 or 16, "
        "without mean and deviation, squashed to 224 x 224, fp32",
    )
    _add_windows(parser.add_argument_group("windows, without a preset"))
    _add_vectors(parser.add_argument_group("vectors, without a preset"))
    source = parser.add_argument_group("the videos")
    for name in ("root", "format", "pattern"):
        add_default(source, BY_OPTION[name])
    add_default(source, settings(PretrainConfig)["data.decoder"])
    source.add_argument(
        "--fps",
        type=float,
        metavar="X",
        help="frames per second, for the times of windows (default: the file's; folders have none)",
    )
    source.add_argument(
        "--short",
        choices=("pad", "report"),
        default="pad",
        help="of videos shorter than a window: one window that repeats their last frame, or an "
        "entry among the failures (default: pad)",
    )
    work = parser.add_argument_group("the work")
    work.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="windows (default: 8; on a CPU 1, which is faster there)",
    )
    work.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    work.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    add_shard_arguments(
        work, "make part I of N, from 1/N to N/N, each in a process of its own", (1, 1)
    )
    work.add_argument(
        "--overwrite",
        action="store_true",
        help="replace features that were made with other weights or settings",
    )
    hints = parser.add_argument_group("what official files don't say")
    hints.add_argument("--heads", type=int, metavar="N", help="(default: the official size's)")
    hints.add_argument(
        "--decoder-heads", type=int, metavar="N", help="of pre-training (default: likewise)"
    )
    hints.add_argument("--frames", type=int, metavar="N", help="trained with (default: 16)")
    hints.add_argument("--image-size", type=int, metavar="N", help="trained with (default: 224)")


def _add_windows(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--stride", type=int, metavar="N", help="frames between windows' starts (default: 16)"
    )
    group.add_argument(
        "--length", type=int, metavar="N", help="frames of a window (default: the model's)"
    )
    group.add_argument(
        "--frame-stride", type=int, metavar="N", help="between a window's frames (default: 1)"
    )
    group.add_argument(
        "--size", type=int, metavar="N", help="side of a frame in pixels (default: the model's)"
    )
    group.add_argument(
        "--fit",
        choices=("crop", "squash"),
        help="crop: the square in the middle, as validation; squash: ignore the aspect "
        "(default: crop)",
    )
    group.add_argument(
        "--pixels",
        nargs="+",
        metavar="X",
        help="imagenet, none (values in 0..1), or six numbers: three means and three deviations "
        "of values in 0..1 (default: imagenet)",
    )


def _add_vectors(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--pooling",
        choices=("clip", "slots", "tokens"),
        help="a vector per window, one per time slot, or one per token [t, h, w] (default: clip)",
    )
    group.add_argument(
        "--layer", type=int, metavar="N", help="blocks to run, from 1 (default: all of them)"
    )
    group.add_argument(
        "--no-final-norm",
        action="store_true",
        help="leave out the model's last norm: fc_norm of a classifier, encoder.norm of "
        "pre-training",
    )


def run(args: argparse.Namespace) -> int:
    check(args)
    from videomae_fast.evaluation.extraction import summary

    made = _by_ray(args) if args.executor == "ray" else make(args, args.shard)
    outcome = made.outcome
    print(summary(outcome, args.output))
    print(f"{'norm':<11} {made.norm}")
    return int(bool(outcome.failed) and not outcome.made and not outcome.skipped)


@dataclass(frozen=True)
class Made:
    """What became of a shard.

    Attributes:
        outcome: of its videos.
        norm: which one was applied.
    """

    outcome: Outcome
    norm: str


def make(args: argparse.Namespace, shard: Shard, *, show_progress: bool = True) -> Made:
    """Makes a shard of what the command line asks for, in this process."""
    from videomae_fast.evaluation.extraction import Extraction, extract
    from videomae_fast.evaluation.features import usual_batch
    from videomae_fast.interop import SourceHints, read_weights
    from videomae_fast.interop.weights.encoder import encoder_of, weights_digest
    from videomae_fast.models.frozen import FrozenFeatures

    clips = _clips(args)
    hints = SourceHints(args.heads, args.decoder_heads, args.frames, args.image_size)
    weights = read_weights(args.weights, hints)
    model = encoder_of(weights)
    device = device_named(args.device)
    try:
        made = _settings(args, weights.config)
        frozen = FrozenFeatures(
            model.to(device), args.pooling or "clip", args.layer, not args.no_final_norm
        )
        frozen.shape(made.windows.length, made.size)
    except ValueError as error:
        raise UsageError(str(error)) from None
    digest = weights_digest(model)  # before they are packed
    if args.precision != "bf16":
        frozen.pack(made.windows.length, made.size, args.batch or usual_batch(device))
    how = Extraction(
        frozen,
        made,
        {"weights": {"kind": weights.kind, "sha256": digest}},
        {"preset": args.preset, "weights_file": str(args.weights), "versions": _versions()},
        device=device,
        batch=args.batch,
        bf16=args.precision == "bf16",
        decoder=args.decoder,
        name_pattern=args.pattern,
        fps=args.fps,
    )
    outcome = extract(
        clips, args.output, how, shard=shard, overwrite=args.overwrite, show_progress=show_progress
    )
    return Made(outcome, frozen.norm_applied)


def _by_ray(args: argparse.Namespace) -> Made:
    from videomae_fast.data.executors import cluster_gpus
    from videomae_fast.data.shards import shard_count
    from videomae_fast.evaluation.extraction import join_shards

    clips = _clips(args)
    on_gpu = args.device == "cuda" or (args.device == "auto" and cluster_gpus() > 0)
    executor = ray_executor(1, float(on_gpu))
    count = shard_count(len(clips), args.shards or executor.shards())
    made = executor.run(partial(make, args, show_progress=False), count)
    return Made(join_shards(clips, args.output, [one.outcome for one in made]), made[0].norm)


def check(args: argparse.Namespace) -> None:
    """Raises UsageError for what can be seen without reading anything."""
    for path in (args.weights, args.videos):
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
    check_folder("OUT", args.output)
    check_shard_arguments(args)
    if args.root is not None and not args.root.is_dir():
        raise UsageError(f"--root {args.root}: no such folder")
    if args.batch is not None and args.batch < 1:
        raise UsageError(f"--batch must be 1 or more, not {args.batch}")
    if args.fps is not None and not args.fps > 0:
        raise UsageError(f"--fps must be more than 0, not {args.fps:g}")
    given = [name for name in _PRESET if getattr(args, name) is not None]
    given += ["no_final_norm"] if args.no_final_norm else []
    if args.preset is not None and given:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"--preset {args.preset} says {named} itself: leave one of them out")


def _clips(args: argparse.Namespace) -> list[Clip]:
    from videomae_fast.data.lists import load_list
    from videomae_fast.data.lists.video_files import EXTENSIONS, find_video_files
    from videomae_fast.evaluation.extraction import Clip

    if args.videos.is_dir():
        return [Clip(args.videos / name) for name in find_video_files(args.videos).videos]
    if args.videos.suffix.lower() in EXTENSIONS:
        return [Clip(args.videos)]
    entries = load_list(args.videos, args.format)
    found = []
    for index in range(len(entries)):
        entry = entries[index]
        path = Path(os.path.join(args.root or "", entry.path))
        found.append(Clip(path, entry.start, entry.total, entry.line))
    return found


def _settings(args: argparse.Namespace, config: MAEConfig) -> FeatureSettings:
    from dataclasses import replace

    from videomae_fast.evaluation.features import FeatureSettings, preset
    from videomae_fast.evaluation.windows import WindowRule
    from videomae_fast.models.pixels import IMAGENET, UNIT, Pixels

    if args.preset is not None:
        released = preset(args.preset)
        return replace(released, windows=replace(released.windows, short=args.short))
    match args.pixels or ["imagenet"]:
        case ["imagenet"]:
            pixels = IMAGENET
        case ["none"]:
            pixels = UNIT
        case words:
            try:
                a, b, c, d, e, f = (float(word) for word in words)
            except ValueError:
                raise UsageError(
                    f"--pixels {' '.join(words)}: imagenet, none, or three means and three "
                    "deviations"
                ) from None
            pixels = Pixels((a, b, c), (d, e, f))
    side = config.image_size
    size = (side, side) if isinstance(side, int) else side
    return FeatureSettings(
        WindowRule(
            16 if args.stride is None else args.stride,
            config.frames if args.length is None else args.length,
            1 if args.frame_stride is None else args.frame_stride,
            args.short,
        ),
        size if args.size is None else (args.size, args.size),
        args.fit or "crop",
        pixels,
    )


def _versions() -> dict[str, str]:
    import numpy
    import torch

    from videomae_fast import __version__

    return {"videomae_fast": __version__, "torch": torch.__version__, "numpy": numpy.__version__}
