"""Options that the commands about data lists share."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from videomae_fast.cli.options import add_default
from videomae_fast.errors import UsageError
from videomae_fast.recipes.source import BY_OPTION, remote_url


def add_list_arguments(parser: argparse.ArgumentParser, *, time_limit: float) -> None:
    parser.add_argument("list", type=Path, metavar="LIST", help="a data list, as for pretrain")
    reading = parser.add_argument_group("the list")
    for name in ("root", "format"):
        add_default(reading, BY_OPTION[name])
    work = parser.add_argument_group("the work")
    work.add_argument(
        "--workers",
        type=int,
        default=usable_cpus(),
        metavar="N",
        help="processes, one file and one thread each (default: one per usable CPU)",
    )
    work.add_argument(
        "--time-limit",
        type=float,
        default=time_limit,
        metavar="SECONDS",
        help="for one file; after it the file counts as bad and the work goes on (default: "
        f"{time_limit:g})",
    )


def shard(text: str) -> tuple[int, int]:
    """``2/4`` as (2, 4), for argparse."""
    part, _, count = text.partition("/")
    if part.isdecimal() and count.isdecimal() and 1 <= int(part) <= int(count):
        return int(part), int(count)
    raise argparse.ArgumentTypeError(f"{text!r} is no part like 1/4, of 1/4 to 4/4")


def check_list_arguments(args: argparse.Namespace) -> None:
    """Raises UsageError for what can be seen without reading the list."""
    check_list_file(args.list)
    if args.root is not None and not args.root.is_dir():
        raise UsageError(f"--root {args.root}: no such folder")
    if args.workers < 1:
        raise UsageError(f"--workers must be 1 or more, not {args.workers}")
    if not args.time_limit > 0:
        raise UsageError(f"--time-limit must be more than 0, not {args.time_limit:g}")


def check_list_file(path: Path, named: str = "", *, stores: bool = False) -> None:
    """Raises UsageError where there is no such list; named: by what words, its path by default;
    stores: whether a store may stand for a list."""
    named = named or str(path)
    if stores and remote_url(path) is not None:
        return
    if stores and path.is_dir():
        from videomae_fast.data.store.opening import is_store

        if is_store(path):
            return
    if path.is_dir():
        raise UsageError(
            f"{named}: {path} is a folder: make a list of its videos with "
            f"videomae-fast list {shlex.quote(str(path))} > train.csv"
        )
    if not path.exists():
        raise UsageError(f"{named}: no such list file: {path}")
    if not path.is_file():
        raise UsageError(f"{named}: {path} is a pipe or a device: write the list to a file")


def check_folder(option: str, path: Path) -> None:
    """Raises UsageError where a file stands in the place of a folder that is to be written, or of
    one above it."""
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    if there.is_dir():
        return
    if there == path:
        raise UsageError(f"{option} {path} is a file: name a folder")
    raise UsageError(f"{option} {path}: {there} is no folder")


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
