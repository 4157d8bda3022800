"""``videomae-fast probe-features``: what frozen features, stored once, say of classes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videomae_fast.cli.list_options import check_list_file
from videomae_fast.cli.options import device_named
from videomae_fast.errors import UsageError

if TYPE_CHECKING:
    from videomae_fast.evaluation.labelled_features import LabelledFeatures
    from videomae_fast.evaluation.probes import ProbeResult

PROBES = ("linear", "attentive", "neighbours")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "features", type=Path, metavar="FEATURES", help="folder that features was run into"
    )
    parser.add_argument("train", type=Path, metavar="TRAIN", help="list of videos to learn from")
    parser.add_argument("validation", type=Path, metavar="VALIDATION", help="list to be scored")
    parser.add_argument(
        "--probe",
        nargs="+",
        choices=PROBES,
        default=["linear", "neighbours"],
        help="linear heads and nearest neighbours on the mean of a video's windows, attentive "
        "heads on the tokens of its middle window (default: linear neighbours)",
    )
    parser.add_argument(
        "--validation-features",
        type=Path,
        metavar="FOLDER",
        help="where the features of VALIDATION are (default: FEATURES)",
    )
    lists = parser.add_argument_group("the lists")
    lists.add_argument("--root", type=Path, metavar="FOLDER", help="relative paths start here")
    lists.add_argument(
        "--format",
        choices=("labels", "folder-labels"),
        default="labels",
        help="of their lines: 'path label' or 'folder total label' (default: labels)",
    )
    lists.add_argument(
        "--classes", metavar="FILE", help="class names, one a line, or kinetics-400 and so on"
    )
    heads = parser.add_argument_group("heads")
    heads.add_argument(
        "--rates", type=float, nargs="+", metavar="X",
        help="learning rates (default: 0.005 0.003 0.001 0.0003 0.0001)",
    )  # fmt: skip
    heads.add_argument(
        "--decays", type=float, nargs="+", metavar="X",
        help="weight decays; every pair gets a head, all learn at once "
        "(default: 0.01 0.1 0.4 0.8)",
    )  # fmt: skip
    heads.add_argument("--epochs", type=int, default=20, metavar="N", help="(default: 20)")
    heads.add_argument("--batch", type=int, metavar="N", help="videos (default: 256, attentive 32)")
    heads.add_argument("--heads", type=int, default=16, metavar="N",
                       help="of an attentive probe's attention (default: 16)")  # fmt: skip
    heads.add_argument("--depth", type=int, default=4, metavar="N",
                       help="blocks of an attentive probe (default: 4)")  # fmt: skip
    heads.add_argument("--neighbours", type=int, nargs="+", default=[1, 5, 20], metavar="K",
                       help="that vote, each number by itself (default: 1 5 20)")  # fmt: skip
    heads.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON with all scores")


def run(args: argparse.Namespace) -> int:
    check(args)
    from videomae_fast.data.labels.names import class_names
    from videomae_fast.evaluation.labelled_features import FeatureFolder

    names = None if args.classes is None else class_names(args.classes)
    stored = FeatureFolder(args.features)
    train = stored.of_list(args.train, args.root, args.format)
    scored = stored
    if args.validation_features is not None:
        scored = FeatureFolder(args.validation_features)
        stored.check_alike(scored)
    validation = scored.of_list(args.validation, args.root, args.format)
    classes = len(names) if names else 1 + int(max(train.labels.max(), validation.labels.max()))
    device = device_named(args.device)
    told: dict[str, Any] = {
        "features": str(args.features),
        "made_from": stored.made_from,
        "lists": {"train": str(args.train), "validation": str(args.validation)},
        "videos": {"train": len(train.labels), "validation": len(validation.labels)},
        "left_out": [*train.left_out, *validation.left_out],
        "classes": classes,
        "probes": {},
    }
    for line in told["left_out"]:
        print(f"left out, no features: {line}")
    print(f"{len(train.labels):,} videos to learn from, {len(validation.labels):,} scored, "
          f"{classes} classes\n")  # fmt: skip
    print(f"{'probe':<12} {'learning rate':>13} {'weight decay':>12} {'top-1':>7}")
    warnings = []
    for kind in dict.fromkeys(args.probe):
        rows, warning = (
            _neighbours(args, train, validation, classes, device)
            if kind == "neighbours"
            else _trained(kind, args, train, validation, classes, device)
        )
        told["probes"][kind] = {"scores": rows, "warning": warning}
        for row in rows if kind == "neighbours" else rows[:1]:
            rate, decay = row.get("learning_rate"), row.get("weight_decay")
            name = kind if rate is not None else f"{row['neighbours']}-nearest"
            shown = ("", "") if rate is None else (f"{rate:g}", f"{decay:g}")
            print(f"{name:<12} {shown[0]:>13} {shown[1]:>12} {row['accuracy']:>7.1%}")
        if warning is not None:
            warnings.append(f"{kind}: {warning}")
    for warning in warnings:
        print(f"\nwarning: {warning}")
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        print(f"\nscores of every head: {args.output}")
    return 0


def check(args: argparse.Namespace) -> None:
    """Raises UsageError for what can be seen without reading anything."""
    for folder in (args.features, args.validation_features):
        if folder is not None and not folder.is_dir():
            raise UsageError(f"{folder}: no such folder")
    for path in (args.train, args.validation):
        check_list_file(path)
    if args.root is not None and not args.root.is_dir():
        raise UsageError(f"--root {args.root}: no such folder")
    for name in ("epochs", "batch", "heads", "depth"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UsageError(f"--{name} must be 1 or more, not {getattr(args, name)}")
    if min(args.neighbours) < 1:
        raise UsageError(f"--neighbours must be 1 or more, not {min(args.neighbours)}")
    if args.output is not None and args.output.is_dir():
        raise UsageError(f"--output {args.output} is a folder: name a file")
    if args.rates and min(args.rates) <= 0:
        raise UsageError(f"--rates must be more than 0, not {min(args.rates):g}")


def _trained(
    kind: str,
    args: argparse.Namespace,
    train: LabelledFeatures,
    validation: LabelledFeatures,
    classes: int,
    device: Any,
) -> tuple[list[dict[str, float]], str | None]:
    """Scores of all heads, the best first, and a warning where that one only guesses."""
    from videomae_fast.evaluation.probes import DECAYS, RATES, attentive_probe, linear_probe

    shared = {
        "classes": classes,
        "rates": args.rates or RATES,
        "decays": DECAYS if args.decays is None else args.decays,
        "epochs": args.epochs,
        "seed": args.seed,
    }
    labels = train.labels.to(device), validation.labels.to(device)
    found: ProbeResult
    if kind == "linear":
        found = linear_probe(
            train.vectors.to(device), labels[0], validation.vectors.to(device), labels[1],
            batch=args.batch or 256, **shared,
        )  # fmt: skip
    else:
        if train.tokens is None or validation.tokens is None:
            raise UsageError(
                f"{args.features}: windows have different numbers of tokens, which an attentive "
                "probe can't take: make features with one size and length"
            )
        width = train.tokens.shape[-1]
        if width % args.heads:
            raise UsageError(f"--heads {args.heads} does not divide the features' width, {width}")
        if train.tokens.shape[1] == 1:
            raise UsageError(
                f"{args.features}: has a single vector per window, and an attentive probe looks "
                "over tokens: make features with --pooling tokens, or slots"
            )
        found = attentive_probe(
            train.tokens.to(device), labels[0], validation.tokens.to(device), labels[1],
            heads=args.heads, depth=args.depth, batch=args.batch or 32, **shared,
        )  # fmt: skip
    rows = [
        {
            "learning_rate": score.learning_rate,
            "weight_decay": score.weight_decay,
            "accuracy": score.accuracy,
        }
        for score in found.scores
    ]
    return rows, found.warning


def _neighbours(
    args: argparse.Namespace,
    train: LabelledFeatures,
    validation: LabelledFeatures,
    classes: int,
    device: Any,
) -> tuple[list[dict[str, float]], str | None]:
    """A score for each number of neighbours, in the order given."""
    from videomae_fast.evaluation.probes import chance_warning, nearest_neighbours

    rows: list[dict[str, float]] = []
    known, labels = train.vectors.to(device), train.labels.to(device)
    queries = validation.vectors.to(device)
    for k in dict.fromkeys(args.neighbours):
        votes = nearest_neighbours(known, labels, queries, k=k, classes=classes).cpu()
        right = (votes.argmax(1) == validation.labels).float().mean()
        rows.append({"neighbours": k, "accuracy": float(right)})
    best = max(row["accuracy"] for row in rows)
    return rows, chance_warning(best, validation.labels, classes)
