"""``videomae-fast cache``: a list's videos, decoded beforehand."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from videomae_fast.cli.list_options import add_list_arguments, check_folder, check_list_arguments
from videomae_fast.cli.options import add_default
from videomae_fast.errors import UsageError
from videomae_fast.recipes.fields import settings
from videomae_fast.recipes.schema import PretrainConfig

_GB: Final = 10**9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder",
        type=Path,
        required=True,
        metavar="DIR",
        help="where decoded frames are kept: on a fast disk, or in memory (/dev/shm/...)",
    )
    parser.add_argument(
        "--limit-gb",
        type=float,
        required=True,
        metavar="GB",
        help="for all that is in the folder, in 10^9 bytes",
    )
    add_default(parser, settings(PretrainConfig)["data.decoder"])
    add_list_arguments(parser, time_limit=600.0)


def run(args: argparse.Namespace) -> int:
    check(args)
    from videomae_fast.data.cache import fill_cache
    from videomae_fast.progress import ProgressLine, size_text

    done = fill_cache(
        args.list,
        args.folder,
        int(args.limit_gb * _GB),
        decoder=args.decoder,
        format=args.format,
        root=args.root,
        workers=args.workers,
        time_limit=args.time_limit,
        log=lambda line: print(line, file=sys.stderr, flush=True),
        progress=lambda total: ProgressLine(total, "files"),
    )
    held = done.added + done.before
    print(f"cached     {held:,} of {done.videos:,} videos ({done.before:,} were there already)")
    print(f"folder     {args.folder}: {size_text(done.bytes)} of {size_text(args.limit_gb * _GB)}")
    if done.other_version:
        print(f"replaced   {done.other_version:,} entries of another version of this library")
    if done.no_room:
        print(f"no room    for {done.no_room:,} videos: they are decoded each time, as before")
    if done.others:
        print(f"left       {done.others:,} videos: in work elsewhere, or changed meanwhile")
    if done.folders:
        print(f"folders    {done.folders:,} lines of frame folders are read as they are")
    if done.bad:
        print(f"bad files  {done.bad:,} videos can't be decoded: {done.bad_files}")
    return 0


def check(args: argparse.Namespace) -> None:
    """Raises UsageError for what can be seen without reading the list."""
    from videomae_fast.data.decoders import find_decoder

    check_list_arguments(args)
    check_folder("--folder", args.folder)
    if not 0 < args.limit_gb < float("inf"):
        raise UsageError(f"--limit-gb must be more than 0, not {args.limit_gb:g}")
    try:
        find_decoder(args.decoder)
    except ValueError as error:
        raise UsageError(f"--decoder: {error}") from None
