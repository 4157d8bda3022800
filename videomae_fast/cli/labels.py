"""``videomae-fast labels merge``: one label space, and its lists, of several sets."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from videomae_fast.cli.list_options import check_folder
from videomae_fast.cli.run_options import parse_source
from videomae_fast.errors import UsageError

if TYPE_CHECKING:
    from videomae_fast.data.labels.building import SetList
    from videomae_fast.data.labels.merging import Split


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s merge --train LIST,classes=NAMES ... --output DIR [options]"
    parser.add_argument("action", choices=("merge",), help="make one set of several")
    parser.add_argument(
        "--train",
        action="append",
        default=[],
        metavar="LIST,classes=NAMES[,OPTION=VALUE...]",
        help="a set's training list, lines 'path label', with the names of its classes: a file "
        "with one a line, or kinetics-400, -600, -700, -710; other options as for finetune --data. "
        "Repeat it: of a video that is in several lists the first one stays",
    )
    parser.add_argument(
        "--validation",
        action="append",
        default=[],
        metavar="LIST,classes=NAMES[,OPTION=VALUE...]",
        help="likewise for validation; its videos are taken out of training, of whatever set",
    )
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help="names and order of the merged classes, as kinetics-710 has them for released heads "
        "(default: all names of the sets, in alphabetical order)",
    )
    parser.add_argument(
        "--other-names",
        metavar="FILE",
        help='names that mean another one, unified first: a JSON file {"name": "what it means"}, '
        "or kinetics",
    )
    parser.add_argument(
        "--same-video",
        choices=("youtube", "name", "path"),
        default="youtube",
        help="two files are one video by its YouTube id, as Kinetics files are called, and by path "
        "where they are called otherwise (youtube), by file name, or by path (default: youtube)",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for lists and report")


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
        UsageError, ListError: as :func:`videomae_fast.data.labels.building.build`.
    """
    lists = [*_lists(args.train, "--train", "train")]
    if not lists:
        raise UsageError("--train is missing: name each set's list and the names of its classes")
    lists += _lists(args.validation, "--validation", "validation")
    if args.output is None:
        raise UsageError("--output is missing: name the folder for lists and report")
    check_folder("--output", args.output)
    from videomae_fast.data.labels.building import build, read_other_names, write

    built = build(
        lists,
        classes=args.classes,
        other_names=None if args.other_names is None else read_other_names(args.other_names),
        rule=args.same_video,
    )
    write(built, args.output)
    print(built.merged.report())
    for name in built.unified:
        print(f"several classes of {name} are one now, so no rows of a merged head are its head")
    if not args.validation:
        print("warning: no list is for validation, so nothing was looked for in training")
    sys.stdout.flush()
    return 0


def _lists(texts: list[str], flag: str, split: Split) -> list[SetList]:
    from videomae_fast.data.labels.building import SetList

    found = []
    for text in texts:
        words = text.split(",")
        classes = [word for word in words if word.startswith("classes=")]
        if len(classes) != 1:
            raise UsageError(
                f"{flag} {text}: say once whose classes its labels are, as in "
                "LIST,classes=classes.txt or LIST,classes=kinetics-400"
            )
        rest = ",".join(word for word in words if word not in classes)
        source = parse_source(rest, flag, "labels")
        found.append(SetList(source, classes[0].removeprefix("classes="), split))
    return found
