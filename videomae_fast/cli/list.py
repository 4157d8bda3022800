"""``videomae-fast list``: the videos of a folder as a data list."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from videomae_fast.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="videos are looked for in it and below, by name"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where to write the list (default: printed)"
    )
    parser.add_argument(
        "--relative",
        action="store_true",
        help="paths start from FOLDER, so that it can be moved (read the list with root=FOLDER); "
        "else they are absolute",
    )
    parser.add_argument(
        "--labels",
        action="store_true",
        help="lines 'path label': FOLDER holds a folder per class, whose place among their sorted "
        "names is the label (read the list with format=labels)",
    )
    parser.add_argument(
        "--classes",
        type=Path,
        metavar="FILE",
        help="with --labels: the names of the classes, a line each. A file that is there is "
        "followed, so that several folders get the same labels; else it is written",
    )


def run(args: argparse.Namespace) -> int:
    check(args)
    from videomae_fast.data.files import write_lines
    from videomae_fast.data.lists import Entry, list_line
    from videomae_fast.data.lists.video_files import find_video_files, told

    found = find_video_files(args.folder)
    classes = _classes(found.videos, args) if args.labels else {}
    root = "" if args.relative else os.path.abspath(args.folder)
    lines = []
    for number, video in enumerate(found.videos, start=1):
        path = os.path.join(root, video)
        label = classes[video.partition("/")[0]] if args.labels else -1
        entry = Entry(path, 0, -1, label, number)
        lines.append(list_line(entry, path, "labels" if args.labels else "pretrain"))
    if args.classes is not None and not args.classes.exists():
        write_lines(args.classes, (f"{name}\n" for name in classes))
    if args.output is not None:
        write_lines(args.output, lines)
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode("".join(lines)))
        sys.stdout.buffer.flush()
    summary = f"{len(lines):,} videos"
    if args.labels:
        summary += f" of {len(classes):,} classes"
    if found.left_out:
        summary += f"; left out: {told(found.left_out)}"
    print(summary, file=sys.stderr)
    return 0


def check(args: argparse.Namespace) -> None:
    """Raises UsageError for what can be seen without looking into the folder."""
    if args.classes is not None and not args.labels:
        raise UsageError("--classes goes with --labels")
    if args.classes is not None and args.classes.exists() and not args.classes.is_file():
        raise UsageError(f"--classes {args.classes} is no file")
    if args.output is not None and args.output.is_dir():
        raise UsageError(f"--output {args.output} is a folder: name a file")


def _classes(videos: list[str], args: argparse.Namespace) -> dict[str, int]:
    """The label of each class: a folder of ``args.folder``.

    Raises:
        UsageError: a video that is in no such folder, or in one that ``--classes`` does not name.
    """
    for video in videos:
        if "/" not in video:
            raise UsageError(
                f"{args.folder / video}: is in no folder of a class: with --labels {args.folder} "
                "holds a folder per class"
            )
    from videomae_fast.data.labels.names import names_in

    names = list(dict.fromkeys(video.partition("/")[0] for video in videos))
    if args.classes is not None:
        for name in names:
            if not name.strip() or "\r" in name:
                raise UsageError(
                    f"{str(args.folder / name)!r}: a class of this name can't stand on a line of "
                    f"{args.classes}: rename the folder"
                )
    if args.classes is None or not args.classes.exists():
        return {name: label for label, name in enumerate(names)}
    known = {name: label for label, name in enumerate(names_in(args.classes))}
    for name in names:
        if name not in known:
            raise UsageError(
                f"{args.folder / name}: {args.classes} has no class of this name; it has "
                f"{len(known):,} (remove the file to number the classes of this folder anew)"
            )
    return known
