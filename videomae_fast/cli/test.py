"""``videomae-fast test``: the accuracy of a classifier in several views of each video."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from videomae_fast.cli.list_options import check_folder
from videomae_fast.cli.run_options import parse_source, run_of, say
from videomae_fast.cli.score_options import add_trained_arguments, add_work_arguments, check_counts
from videomae_fast.errors import UsageError
from videomae_fast.recipes.classification import FinetuneConfig
from videomae_fast.recipes.distillation import DistillConfig

_ROWS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "weights",
        type=Path,
        metavar="WEIGHTS",
        help="a classifier in any layout that convert reads, as OUTPUT/best.safetensors of "
        "finetune, or a run's folder (its newest whole checkpoint)",
    )
    parser.add_argument(
        "list",
        metavar="LIST[,OPTION=VALUE...]",
        help="labelled list, lines 'path label'; options as for finetune --data",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for scores, tables and the picture"
    )
    views = parser.add_argument_group("views; defaults are the fine-tuning run's, where it is one")
    views.add_argument("--segments", type=int, default=5, metavar="N", help="of time (default: 5)")
    views.add_argument("--crops", type=int, default=3, metavar="N", help="of space (default: 3)")
    views.add_argument(
        "--sampling", choices=("dense", "sparse"), help="frames of a clip (default: dense)"
    )
    views.add_argument(
        "--stride", type=int, metavar="N", help="from one frame to the next (default: 4)"
    )
    views.add_argument("--frames", type=int, metavar="N", help="of a clip (default: the weights')")
    views.add_argument(
        "--image-size", type=int, metavar="N", help="side of a clip (default: the weights')"
    )
    views.add_argument(
        "--classes",
        metavar="FILE",
        help="names of the classes, one a line, or kinetics-400, -600, -700, -710 (default: the "
        "weights')",
    )
    add_trained_arguments(views)
    work = parser.add_argument_group("the work")
    work.add_argument(
        "--batch", type=int, default=30, metavar="N", help="clips at a time (default: 30)"
    )
    add_work_arguments(work)


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
        VideoMAEFastError: as :func:`videomae_fast.tasks.testing.score_lists`.
    """
    source = parse_source(args.list, "LIST", "labels")
    if args.output is None:
        raise UsageError("--output is missing: name the folder for scores and tables")
    check_folder("--output", args.output)
    check_counts(args, "segments", "crops", "batch", "stride", "frames", "image_size", "heads")
    if args.workers < 0 or not args.time_limit > 0:
        raise UsageError("--workers must be 0 or more, and --time-limit more than 0")
    if not args.weights.exists():
        raise UsageError(f"{args.weights}: no such weights")
    from videomae_fast.interop import SourceHints
    from videomae_fast.tasks.testing import (
        ViewSettings,
        classifier_weights,
        score_lists,
        weights_path,
    )

    tuned = _run_of(args.weights)
    path = weights_path(args.weights)
    hints = SourceHints(args.heads, frames=args.trained_frames, image_size=args.trained_image_size)
    weights = classifier_weights(path, hints)
    size = tuned.model.image_size if tuned else weights.config.image_size
    side = size if isinstance(size, int) else size[0]
    settings = ViewSettings(
        segments=args.segments,
        crops=args.crops,
        sampling=args.sampling or (tuned.data.sampling if tuned else "dense"),
        stride=args.stride or (tuned.data.stride if tuned else 4),
        frames=args.frames or (tuned.model.frames if tuned else weights.config.frames),
        image_size=args.image_size or side,
        decoder=args.decoder,
        precision=args.precision,
        clips=args.batch,
        workers=args.workers,
        device=args.device,
        time_limit=args.time_limit,
        heads=args.heads,
    )
    dense = settings.sampling == "dense"
    given = args.stride or source.stride
    if not dense and given is not None:
        raise UsageError(
            f"stride {given} would do nothing, as sparse clips spread over the whole video: leave "
            "it out, or give --sampling dense"
        )
    classes = args.classes or (tuned.data.classes if tuned and not weights.labels else None)
    main = os.environ.get("RANK", "0") == "0"
    if main:
        say(
            f"{path}: {weights.classes} classes; {settings.segments} segments x {settings.crops} "
            f"crops of {settings.frames} frames ({settings.sampling}"
            f"{f', stride {settings.stride}' if dense else ''}), "
            f"{settings.image_size} pixels"
        )
    result = score_lists(
        path, weights, [source], settings, classes=classes, output=args.output, log=say
    )
    if not main:
        return 0
    from videomae_fast.pictures.confusion import save_confusion

    save_confusion(args.output / "confusion.png", result.confusion, [r.name for r in result.table])
    for row in sorted(result.table, key=lambda row: (row.accuracy is None, row.accuracy))[:_ROWS]:
        if row.accuracy is not None:
            other = "" if row.most_often is None else result.table[row.most_often].name
            taken = f", most often taken for {other}" if other else ""
            say(f"{row.accuracy:7.1%}  {row.name} ({row.right} of {row.videos}{taken})")
    left_out = f", {len(result.failures)} left out" if result.failures else ""
    say(
        f"top-1 {result.top1:.2%}, top-5 {result.top5:.2%}, mean of classes "
        f"{result.mean_class:.2%} ({result.videos} videos{left_out}); tables in {args.output}"
    )
    return 0


def _run_of(path: Path) -> FinetuneConfig | None:
    """The configuration of the run of fine-tuning or distillation that weights lie in."""
    return run_of(path, FinetuneConfig) or run_of(path, DistillConfig)
