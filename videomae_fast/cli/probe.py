"""``videomae-fast probe``: a manifest of a list's files, and a summary."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from videomae_fast.cli.executor_options import (
    add_shard_arguments,
    check_shard_arguments,
    ray_executor,
)
from videomae_fast.cli.list_options import add_list_arguments, check_list_arguments
from videomae_fast.cli.options import add_default
from videomae_fast.errors import UsageError
from videomae_fast.recipes.source import BY_OPTION

if TYPE_CHECKING:
    from videomae_fast.data.probe import ProbeSummary

_SHOWN: Final = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="the manifest: a JSON object per line of the list, in its order",
    )
    parser.add_argument(
        "--good-list",
        type=Path,
        metavar="FILE",
        help="also write the list without the lines that can't be read",
    )
    parser.add_argument(
        "--decode",
        action="store_true",
        help="decode every frame, not only the first: slower, and finds damage inside files",
    )
    add_shard_arguments(
        parser,
        "part I of N of the list, for several machines: manifests (and good lists) of all "
        "parts one after the other are those of the whole list",
        (1, 1),
    )
    add_default(parser, BY_OPTION["pattern"])
    add_list_arguments(parser, time_limit=120.0)


def run(args: argparse.Namespace) -> int:
    check(args)
    from videomae_fast.data.errors import MISSING
    from videomae_fast.data.lists import load_list
    from videomae_fast.data.lists.sources import where_paths_start
    from videomae_fast.data.probe import probe
    from videomae_fast.progress import ProgressLine

    if args.executor == "ray":
        summary = _by_ray(args)
    else:
        summary = probe(
            args.list,
            args.output,
            format=args.format,
            root=args.root,
            name_pattern=args.pattern,
            decode=args.decode,
            good_list=args.good_list,
            workers=args.workers,
            time_limit=args.time_limit,
            shard=args.shard,
            progress=lambda total: ProgressLine(total, "files"),
        )
    print(table(summary))
    if summary.bad and summary.bad.total() == summary.lines and summary.bad.keys() <= set(MISSING):
        first = load_list(args.list, args.format)[0].path
        print(f"all missing    {where_paths_start(os.path.join(args.root or '', first))}")
    print(f"manifest       {args.output}")
    if args.good_list is not None:
        print(f"readable only  {args.good_list}")
    return 0


def _by_ray(args: argparse.Namespace) -> ProbeSummary:
    from videomae_fast.data.probe_shards import ProbeShards, probe_in_shards

    work = ProbeShards(
        args.list,
        args.output.with_name(f"{args.output.name}.shards"),
        format=args.format,
        root=args.root,
        name_pattern=args.pattern,
        decode=args.decode,
        good=args.good_list is not None,
        workers=args.workers,
        time_limit=args.time_limit,
    )
    executor = ray_executor(args.workers)
    return probe_in_shards(
        work, args.output, executor, good_list=args.good_list, shards=args.shards
    )


def check(args: argparse.Namespace) -> None:
    """Raises UsageError for what can be seen without reading the list."""
    check_list_arguments(args)
    check_shard_arguments(args)
    for name in ("output", "good_list"):
        path = getattr(args, name)
        if path is not None and path.exists() and path.samefile(args.list):
            raise UsageError(f"--{name.replace('_', '-')} {path} would overwrite the list")
    if args.good_list is not None and args.good_list.absolute() == args.output.absolute():
        raise UsageError("--output and --good-list name the same file")


def table(summary: ProbeSummary) -> str:
    """The summary, a row per subject."""
    bad = summary.bad
    kinds = f"{summary.videos:,} videos, {summary.folders:,} frame folders"
    rows = [
        ("lines", f"{summary.lines:,}: {kinds}, {bad.total():,} can't be read"),
        ("frames", f"{summary.frames:,} in {summary.seconds / 3600:,.2f} hours"),
        ("codecs", _most(summary.codecs)),
        ("sizes", _most(summary.sizes)),
        ("longest GOP", _most(summary.gops)),
        ("variable rate", f"{summary.variable_rate:,}"),
        ("rotated", f"{summary.rotated:,}"),
        ("to be decoded", f"{summary.numbered_by_decoding:,} to number their frames"),
        *(("can't be read", f"{count:,} x {why}") for why, count in bad.most_common(_SHOWN)),
    ]
    return "\n".join(f"{name:<14} {text}" for name, text in rows)


def _most(counts: Counter[str] | Counter[int]) -> str:
    told = ", ".join(f"{name} ({count:,})" for name, count in counts.most_common(_SHOWN))
    more = len(counts) - _SHOWN
    return (told or "-") + (f" and {more:,} more" if more > 0 else "")
