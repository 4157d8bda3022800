"""``videomae-fast detect test``: mAP of a detector, by action, with detections and pictures."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videomae_fast.cli.list_options import check_folder
from videomae_fast.cli.options import described
from videomae_fast.cli.run_options import parse_list, run_of, say
from videomae_fast.cli.score_options import add_trained_arguments, add_work_arguments, check_counts
from videomae_fast.errors import UsageError
from videomae_fast.recipes.box_source import BOXES_BY_OPTION, BoxSource
from videomae_fast.recipes.detection import DetectConfig

if TYPE_CHECKING:
    from videomae_fast.tasks.detection.testing import Detected

_ROWS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "weights",
        type=Path,
        metavar="WEIGHTS",
        help="a detector: OUTPUT/best.safetensors of detect train, a run's folder (its newest "
        "whole checkpoint), or the official code's or mmaction2's file",
    )
    parser.add_argument(
        "lists",
        nargs="+",
        metavar="LIST[,OPTION=VALUE...]",
        help="lists of annotated key frames. Options: "
        f"{described(BOXES_BY_OPTION.values())}".replace("%", "%%"),
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for detections, tables and pictures"
    )
    how = parser.add_argument_group("how; defaults are the run's, where the weights lie in one")
    how.add_argument(
        "--label-map", metavar="FILE", help="actions that count, as AVA's (default: all)"
    )
    how.add_argument("--frames", type=int, metavar="N", help="of a clip (default: the weights')")
    how.add_argument(
        "--stride", type=int, metavar="N", help="from one frame to the next (default: 4)"
    )
    how.add_argument(
        "--short-side", type=int, metavar="N", help="that frames are resized to (default: 256)"
    )
    how.add_argument(
        "--person-score", type=float, metavar="X",
        help="detected persons with a lower score are left out (default: 0.8)",
    )  # fmt: skip
    how.add_argument(
        "--widened", type=float, nargs=2, metavar="X",
        help="boxes are widened by these shares of their width and height (default: 0.1 0.05)",
    )  # fmt: skip
    how.add_argument(
        "--person-scores-count", action=argparse.BooleanOptionalAction,
        help="the score of an action is multiplied by that of its person (default: yes)",
    )  # fmt: skip
    add_trained_arguments(how)
    work = parser.add_argument_group("the work")
    work.add_argument("--batch", type=int, default=8, metavar="N", help="clips at a time")
    add_work_arguments(work)
    work.add_argument(
        "--pictures", type=int, default=4, metavar="N",
        help="key frames that are drawn, each as a picture and an animation (default: 4)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
        VideoMAEFastError: as :func:`videomae_fast.tasks.detection.testing.score_detector`.
    """
    _check(args)
    sources = [parse_list(text, BoxSource, "LIST", None) for text in args.lists]
    from videomae_fast.evaluation.detection import ScoreSettings
    from videomae_fast.tasks.detection.testing import (
        DetectionTest,
        detector_weights,
        score_detector,
    )
    from videomae_fast.tasks.testing import weights_path

    trained = run_of(args.weights, DetectConfig)
    path = weights_path(args.weights)
    weights = detector_weights(path, args.trained_frames, args.trained_image_size, args.heads)
    data = (trained or DetectConfig()).data
    frames = trained.model.frames if trained else weights.config.frames
    bf16 = args.precision == "bf16" or (args.precision == "auto" and _on_gpu(args.device))
    settings = DetectionTest(
        frames=_first(args.frames, frames),
        stride=_first(args.stride, data.stride),
        short_side=_first(args.short_side, data.short_side),
        person_score=_first(args.person_score, data.person_score),
        label_map=_first(args.label_map, data.label_map),
        scores=ScoreSettings(
            args.batch,
            data.widened if args.widened is None else tuple(args.widened),
            _first(args.person_scores_count, data.person_scores_count),
            bf16,
            args.workers,
            args.time_limit,
        ),
        decoder=args.decoder,
        device=args.device,
        heads=args.heads,
    )
    main = os.environ.get("RANK", "0") == "0"
    if main:
        say(
            f"{args.weights}: {weights.classes} actions; clips of {settings.frames} frames, stride "
            f"{settings.stride}, short side {settings.short_side}"
        )
    result = score_detector(path, weights, sources, settings, output=args.output, log=say)
    if main:
        _tell(result, args)
    return 0


def _tell(result: Detected, args: argparse.Namespace) -> None:
    """Draws the pictures, and says what came out."""
    from videomae_fast.pictures.detections import save_detections

    drawn = save_detections(
        args.output, result.clips, result.scored, result.actions.counted, count=args.pictures
    )
    rows = [row for row in result.precision.classes.values() if row.precision is not None]
    for row in sorted(rows, key=lambda row: row.precision or 0)[:_ROWS]:
        say(f"{row.precision:7.1%}  {row.name} ({row.annotated} annotated)")
    left_out = f", {len(result.failures)} left out" if result.failures else ""
    pictures = f", {drawn} of them drawn" if drawn else ""
    say(
        f"mAP {result.precision.mean:.2%} over {len(rows)} actions ({len(result.scored)} key "
        f"frames{left_out}{pictures}); tables in {args.output}"
    )


def _check(args: argparse.Namespace) -> None:
    """Raises UsageError for what can't be."""
    if args.output is None:
        raise UsageError("--output is missing: name the folder for detections and tables")
    check_folder("--output", args.output)
    check_counts(args, "frames", "stride", "short_side", "batch", "heads")
    if min(args.workers, args.pictures) < 0 or not args.time_limit > 0:
        raise UsageError("--workers and --pictures must be 0 or more, --time-limit more than 0")
    if args.person_score is not None and not 0 <= args.person_score <= 1:
        raise UsageError(f"--person-score must be 0 to 1, not {args.person_score:g}")
    if args.widened is not None and min(args.widened) < 0:
        raise UsageError("--widened must be 0 or more")
    if args.label_map is not None and not Path(args.label_map).is_file():
        raise UsageError(f"--label-map {args.label_map}: no such file")
    if not args.weights.exists():
        raise UsageError(f"{args.weights}: no such weights")


def _first(given: Any, otherwise: Any) -> Any:
    return otherwise if given is None else given


def _on_gpu(device: str) -> bool:
    import torch

    return device == "cuda" or (device == "auto" and torch.cuda.is_available())
