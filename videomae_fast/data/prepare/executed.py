"""A list prepared by an executor: its shards on other machines, then the whole as one has it."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from videomae_fast.data.executors import Executor
from videomae_fast.data.lists import load_list
from videomae_fast.data.prepare.journal import Journal
from videomae_fast.data.prepare.settings import PrepareSettings
from videomae_fast.data.prepare.shards import SHARDS, PreparedShard, prepare_shard
from videomae_fast.data.prepare.work import JOURNAL, PARTIAL, Work, jobs_of, videos_of
from videomae_fast.data.shards import Shard, shard_count
from videomae_fast.errors import UsageError


def prepare_shards(
    list_path: str | Path,
    output: str | Path,
    settings: PrepareSettings,
    work: Work,
    executor: Executor,
    shards: int | None = None,
) -> None:
    """Transcodes a list's videos in shards; :func:`~.run.prepare` then writes the list.

    Where that was done before and nothing is left, nothing is done.

    Args:
        list_path, output, settings: see :func:`~.shards.prepare_shard`.
        work: how it is done; log and progress are of this process alone.
        executor: does the shards.
        shards: how many; None: as many as were begun there, else what suits the executor.

    Raises:
        ListError, UsageError, OutputError: as :func:`~.shards.prepare_shard` does.
        BackendUnavailableError, VideoMAEFastError: as the executor's `run` does.
    """
    output = Path(os.path.abspath(output))
    entries = load_list(list_path, work.format)
    if (output / JOURNAL).exists():
        with Journal(output / JOURNAL, settings) as journal:
            videos = videos_of(entries, range(len(entries)), work.root)
            partials = output / PARTIAL
            jobs = jobs_of(videos, journal.records, output, settings, work, partials)
            left = sum(1 for _ in jobs)
        if left:
            raise UsageError(
                f"{output}: its list was written before, and {left:,} files of {list_path} are to "
                "be made: go on without --executor, or give another output folder"
            )
        return
    count = _count(output, len(entries), executor, shards)
    work.log(f"{len(entries):,} lines in {count:,} shards")
    there = replace(work, log=_tell, progress=None)
    executor.run(partial(_shard, list_path, output, settings, there), count)


def _count(output: Path, lines: int, executor: Executor, shards: int | None) -> int:
    """How many shards there are to be: a journal belongs to one of so many."""
    begun = {one.parent.name.partition("-of-")[2] for one in (output / SHARDS).glob(f"*/{JOURNAL}")}
    if len(begun) > 1:
        raise UsageError(
            f"{output / SHARDS} has parts of {' and of '.join(sorted(begun))}: they don't belong "
            "together; keep one kind of them"
        )
    before = int(begun.pop()) if begun else None
    if before is not None and shards not in (None, before):
        raise UsageError(
            f"{output}: was begun in {before} shards: give --shards {before}, or another output "
            "folder"
        )
    return shard_count(lines, before or shards or executor.shards())


def _shard(
    list_path: str | Path, output: Path, settings: PrepareSettings, work: Work, shard: Shard
) -> PreparedShard:
    return prepare_shard(list_path, output, settings, work, shard)


def _tell(line: str) -> None:
    """Ray shows what tasks write there."""
    print(line, file=sys.stderr, flush=True)
