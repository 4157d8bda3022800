"""``videomae-fast prepare``: a list's videos as files that training reads quickly."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from videomae_fast.cli.executor_options import (
    add_shard_arguments,
    check_shard_arguments,
    ray_executor,
)
from videomae_fast.cli.list_options import add_list_arguments, check_folder, check_list_arguments
from videomae_fast.data.prepare.settings import PRESETS, PrepareSettings
from videomae_fast.errors import UsageError

if TYPE_CHECKING:
    from videomae_fast.data.prepare.work import Work


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for videos/, the new list (of the old one's name), its report and bad files; "
        "the same command goes on there after a stop",
    )
    defaults = PrepareSettings()
    video = parser.add_argument_group(
        "the new files",
        "H.264, 4:2:0, 8 bits, no sound, upright, constant rate; frame i stays frame i",
    )
    video.add_argument(
        "--short-side",
        type=int,
        default=defaults.short_side,
        metavar="N",
        help="pixels (even); smaller videos keep their size (default: %(default)s)",
    )
    video.add_argument(
        "--gop",
        type=int,
        default=defaults.gop,
        metavar="N",
        help="frames from one key frame to the next: less is quicker to seek in, and larger "
        "(default: %(default)s)",
    )
    video.add_argument(
        "--b-frames",
        type=int,
        default=defaults.b_frames,
        metavar="N",
        help="B-frames from one reference frame to the next, 0 to 16; a reader leaves out those "
        "that it doesn't want (default: %(default)s)",
    )
    video.add_argument(
        "--crf",
        type=int,
        default=defaults.crf,
        metavar="N",
        help="x264's quality, 0 (lossless) to 51: less is better, larger and slower to read "
        "(default: %(default)s)",
    )
    video.add_argument(
        "--preset",
        choices=PRESETS,
        default=defaults.preset,
        help="x264's effort (default: %(default)s)",
    )
    add_list_arguments(parser, time_limit=1800.0)
    more = parser.add_argument_group("more")
    add_shard_arguments(
        more,
        "transcode part I of N of the list only, for several machines with one OUTPUT; when "
        "all are done, the command without --shard writes the new list",
        None,
    )
    more.add_argument(
        "--retry-failed",
        action="store_true",
        help="try files again that failed before; else only those that changed since",
    )
    more.add_argument(
        "--relative-paths",
        action="store_true",
        help="paths of the new list start from OUTPUT, so that it can be moved (read it with "
        "root=OUTPUT); else they are absolute",
    )
    more.add_argument(
        "--to-store",
        type=Path,
        metavar="STORE",
        help="also put the new files into a store, made where missing, as its next version, but "
        "for those that are in it already (videomae-fast store); videos/ stays, for the same "
        "command to go on there",
    )
    more.add_argument(
        "--speed-files",
        type=int,
        default=8,
        metavar="N",
        help="how many files the reading speed is timed with, 0 for none (default: 8)",
    )


def run(args: argparse.Namespace) -> int:
    settings = check(args)
    if args.shard is not None:
        return _run_shard(args, settings)
    if args.executor == "ray":
        from videomae_fast.data.prepare.executed import prepare_shards

        prepare_shards(
            args.list, args.output, settings, _work(args), ray_executor(args.workers), args.shards
        )
    from videomae_fast.data.prepare.run import prepare
    from videomae_fast.progress import ProgressLine, size_text

    done = prepare(
        args.list,
        args.output,
        settings,
        format=args.format,
        root=args.root,
        workers=args.workers,
        time_limit=args.time_limit,
        retry_failed=args.retry_failed,
        relative_paths=args.relative_paths,
        speed_files=args.speed_files,
        log=lambda line: print(line, file=sys.stderr, flush=True),
        progress=lambda total: ProgressLine(total, "files"),
    )
    print(f"new list   {done.list}  ({done.lines:,} lines)")
    print(
        f"videos     {done.files:,} files, {done.frames:,} frames, "
        f"{size_text(done.source_bytes)} -> {size_text(done.bytes)}"
    )
    if done.folders:
        print(f"folders    {done.folders:,} lines of frame folders are kept as they were")
    if done.bad:
        print(f"bad files  {done.bad:,} lines are left out: {done.bad_files}")
    if done.speed is not None:
        speed = done.speed
        print(
            f"reading    {speed.before:,.0f} -> {speed.after:,.0f} frames/s per process, "
            f"{speed.ratio:.2f} times as fast ({speed.clips} clips of {speed.files} files)"
        )
    print(f"report     {done.report}")
    if args.to_store is not None:
        _store(args, done.list)
    return 0


def _run_shard(args: argparse.Namespace, settings: PrepareSettings) -> int:
    from videomae_fast.data.prepare.shards import prepare_shard

    done = prepare_shard(args.list, args.output, settings, _work(args), args.shard)
    print(f"shard      {args.shard[0]} of {args.shard[1]}: {done.files:,} files, {done.bad:,} bad")
    print("when all shards are done, the same command without --shard writes the new list")
    return 0


def _work(args: argparse.Namespace) -> Work:
    from videomae_fast.data.prepare.work import Work
    from videomae_fast.progress import ProgressLine

    return Work(
        format=args.format,
        root=args.root,
        workers=args.workers,
        time_limit=args.time_limit,
        retry_failed=args.retry_failed,
        log=lambda line: print(line, file=sys.stderr, flush=True),
        progress=lambda total: ProgressLine(total, "files"),
    )


def _store(args: argparse.Namespace, new_list: Path) -> None:
    from videomae_fast.cli.store import tell
    from videomae_fast.data.prepare.work import VIDEOS
    from videomae_fast.data.store.filling import Filling, fill_store
    from videomae_fast.data.store.opening import is_store
    from videomae_fast.progress import ProgressLine

    how = Filling(
        format=args.format,
        root=args.output if args.relative_paths else None,
        below=args.output / VIDEOS if args.relative_paths else new_list.parent / VIDEOS,
        only_new=True,
        workers=args.workers,
        time_limit=args.time_limit,
        progress=lambda total: ProgressLine(total, "clips"),
    )
    tell(args.to_store, fill_store(args.to_store, [new_list], how, new=not is_store(args.to_store)))


def check(args: argparse.Namespace) -> PrepareSettings:
    """The settings; raises UsageError for what can be seen without reading the list."""
    check_list_arguments(args)
    check_shard_arguments(args)
    check_folder("--output", args.output)
    if args.shard is not None and args.to_store is not None:
        raise UsageError("--to-store goes with the command without --shard, when all are done")
    if args.to_store is not None:
        check_folder("--to-store", args.to_store)
    if args.speed_files < 0:
        raise UsageError(f"--speed-files must be 0 or more, not {args.speed_files}")
    try:
        return PrepareSettings(args.short_side, args.gop, args.b_frames, args.crf, args.preset)
    except ValueError as error:
        raise UsageError(str(error)) from None
