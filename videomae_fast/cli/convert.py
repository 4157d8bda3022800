"""``videomae-fast convert``: weights from one layout to another, every tensor accounted for."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from videomae_fast.errors import UsageError

if TYPE_CHECKING:
    from videomae_fast.interop import HeadNames, HeadRows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        type=Path,
        help="an official .pth or .safetensors, mmaction2's .pth, our .safetensors, a folder of "
        "Hugging Face's (config.json and weights) or DeepSpeed's, or a run's or checkpoint's "
        "folder",
    )
    parser.add_argument(
        "destination",
        type=Path,
        help="a new .pth or .safetensors (official), .safetensors (ours), .pth (mmaction2), or "
        "folder (hugging-face)",
    )
    parser.add_argument(
        "--to",
        choices=("official", "hugging-face", "ours", "mmaction2"),
        required=True,
        help="layout of the destination; ours is official keys plus the model's config",
    )
    parser.add_argument(
        "--bias-names",
        choices=("q_bias", "query.bias"),
        help="how --to hugging-face spells q and v biases: q_bias as released checkpoints do, "
        "query.bias for transformers 5.5.1 to 5.17, which read the other as zero (default: q_bias)",
    )
    parser.add_argument(
        "--official-eps",
        action="store_true",
        help="LayerNorm's epsilon becomes the official 1e-6, where the source has another (as "
        "Hugging Face's do); this changes the function slightly",
    )
    parser.add_argument(
        "--licence",
        metavar="NAME",
        help="of the weights, for the model card of --to hugging-face, by the Hub's name, as "
        "cc-by-nc-4.0 (default: left to be filled in)",
    )
    head = parser.add_argument_group("the head")
    head.add_argument(
        "--classifier",
        action="store_true",
        help="make a classifier with a new head (with --classes): the decoder is left out",
    )
    head.add_argument("--classes", type=int, metavar="N", help="classes of the new head")
    head.add_argument(
        "--head-index",
        type=Path,
        metavar="FILE",
        help="take these rows of the classifier's head: kinetics-400, -600 or -700 for those of a "
        "Kinetics-710 head, an official label_710to400.json, or one row number per line, one line "
        "per class",
    )
    head.add_argument(
        "--head-classes",
        type=Path,
        metavar="FILE",
        help="take the rows of these classes of the classifier's head, by name: a file with one a "
        "line; the source has to name its classes, or to be a Kinetics-710 head",
    )
    head.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="names of the classes of the result, one a line, or kinetics-400, -600, -700 or -710, "
        "for --to ours or hugging-face; sources that know them carry them along",
    )
    hints = parser.add_argument_group("what official files don't say")
    hints.add_argument("--heads", type=int, metavar="N", help="(default: the official size's)")
    hints.add_argument("--decoder-heads", type=int, metavar="N", help="(default: likewise)")
    hints.add_argument("--frames", type=int, metavar="N", help="per clip (default: 16)")
    hints.add_argument(
        "--image-size",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="one side, or height and width (default: 224)",
    )
    hints.add_argument(
        "--detector",
        action="store_true",
        help="the source is action detection's model, whose norm.weight could be that of a "
        "classifier of the first token",
    )


def run(args: argparse.Namespace) -> int:
    """Converts and prints the report.

    Raises:
        UsageError: options that contradict each other, or no such source.
        WeightsError: the weights can't be read, or the layout can't hold them.
    """
    check(args)
    from videomae_fast.interop import ConversionOptions, SourceHints, convert

    size = args.image_size
    hints = SourceHints(
        heads=args.heads,
        decoder_heads=args.decoder_heads,
        frames=args.frames,
        image_size=None if size is None else size[0] if len(size) == 1 else tuple(size),
        detector=args.detector,
    )
    options = ConversionOptions(
        layout=args.to,
        classes=args.classes,
        rows=_rows(args.head_index) if args.head_classes is None else _named(args.head_classes),
        official_eps=args.official_eps,
        biases=args.bias_names or "q_bias",
        labels=_labels(args.labels),
        licence=args.licence,
    )
    report = convert(args.source, args.destination, options, hints)
    print("\n".join(report.lines()))
    print(f"written  {args.destination}: {args.to}, {report.result.kind}")
    return 0


def _rows(given: Path | None) -> Path | HeadRows | None:
    """A file, or the rows of one of Kinetics' sets in the head of Kinetics-710."""
    from videomae_fast.data.labels.kinetics import kinetics_rows
    from videomae_fast.interop import HeadRows

    classes = _kinetics(given)
    return given if classes is None else HeadRows(kinetics_rows(classes), of=710)


def _named(given: Path) -> HeadNames:
    """The rows of classes of these names."""
    from videomae_fast.data.labels.kinetics import kinetics_names
    from videomae_fast.data.labels.names import class_names
    from videomae_fast.interop import HeadNames

    return HeadNames(class_names(str(given)), known=kinetics_names(710))


def _labels(given: Path | None) -> Path | list[str] | None:
    """A file, or the names of the classes of one of Kinetics' sets."""
    from videomae_fast.data.labels.kinetics import kinetics_names

    classes = _kinetics(given)
    return given if classes is None else kinetics_names(classes)


def _kinetics(given: Path | None) -> int | None:
    """The set that is named; None for a file."""
    named = re.fullmatch(r"kinetics-(\d+)", str(given), re.ASCII)
    return None if named is None else int(named[1][:9])


def check(args: argparse.Namespace) -> None:
    """Raises UsageError for what can be seen without loading anything."""
    if not args.source.exists():
        raise UsageError(f"{args.source}: no such file or folder")
    if args.classifier != (args.classes is not None):
        raise UsageError("--classifier and --classes N go together: a new head of N classes")
    if args.classes is not None and args.classes < 1:
        raise UsageError(f"--classes must be 1 or more, not {args.classes}")
    if args.classifier and args.head_index is not None:
        raise UsageError("--classifier makes a new head, --head-index takes rows: give one of them")
    if args.head_classes is not None and (args.classifier or args.head_index is not None):
        raise UsageError("--head-classes takes rows by name: leave the other ways to a head out")
    if args.bias_names is not None and args.to != "hugging-face":
        raise UsageError("--bias-names says how --to hugging-face is written; leave it out")
    if args.licence is not None and args.to != "hugging-face":
        raise UsageError("--licence goes into the model card of --to hugging-face; leave it out")
    if args.labels is not None and args.to not in ("ours", "hugging-face"):
        raise UsageError(f"--labels names classes, which --to {args.to} can't say; leave it out")
    if args.image_size is not None and len(args.image_size) > 2:
        raise UsageError("--image-size takes one side, or height and width")
