"""Parts of a list prepared by several machines, into one folder."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from videomae_fast.data.lists import load_list
from videomae_fast.data.prepare.journal import Journal
from videomae_fast.data.prepare.names import Names
from videomae_fast.data.prepare.settings import PrepareSettings
from videomae_fast.data.prepare.work import (
    JOURNAL,
    PARTIAL,
    Work,
    jobs_of,
    plan_of,
    transcode_all,
    videos_of,
)
from videomae_fast.data.shards import Shard, contiguous, shard_name
from videomae_fast.errors import UsageError

SHARDS = "shards"


@dataclass(frozen=True)
class PreparedShard:
    """What :func:`prepare_shard` made. files, bad: videos that are done, and that can't be."""

    files: int
    bad: int


def prepare_shard(
    list_path: str | Path, output: str | Path, settings: PrepareSettings, work: Work, shard: Shard
) -> PreparedShard:
    """Transcodes a part of a list into ``output/videos``, with a journal of its own.

    The names of new files are those of the whole list, so all parts together give the files of one
    machine. When all are done, :func:`~.run.prepare` takes their journals over and writes the list.

    Args:
        list_path: the whole list; the parts are of its lines.
        output: the same folder for all parts, on a common file system.
        settings: of the new files; the same for all parts.
        work: how it is done.
        shard: which part.

    Raises:
        ListError, UsageError, OutputError: as :func:`~.run.prepare` does.
    """
    output = Path(os.path.abspath(output))
    if (output / JOURNAL).exists():
        raise UsageError(
            f"{output}: was prepared without shards before: go on without --shard, or give another "
            "output folder"
        )
    entries = load_list(list_path, work.format)
    names = Names()
    named = {
        source: names.name(path)
        for source, path in videos_of(entries, range(len(entries)), work.root).items()
    }
    videos = videos_of(entries, contiguous(len(entries), shard), work.root)
    folder = output / SHARDS / shard_name(shard)
    with Journal(folder / JOURNAL, settings) as journal:
        partial = folder / PARTIAL
        shutil.rmtree(partial, ignore_errors=True)  # what a kill left behind
        jobs = dict(jobs_of(videos, journal.records, output, settings, work, partial, named))
        work.log(plan_of(videos, jobs, journal.records))
        try:
            if jobs:
                transcode_all(jobs, journal, output, work)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        bad = sum(journal.records[source].made is None for source in videos)
    return PreparedShard(len(videos) - bad, bad)


def take_over(journal: Journal, output: Path, settings: PrepareSettings) -> int:
    """Adds what the journals of shards say to the one of the whole list.

    Returns:
        How many files they knew of that it did not.

    Raises:
        UsageError: a shard is in work, or was made with other settings.
    """
    taken = 0
    with ExitStack() as stack:
        for path in sorted((output / SHARDS).glob(f"*/{JOURNAL}")):
            other = stack.enter_context(Journal(path, settings))
            for source, record in other.records.items():
                if source not in journal.records:
                    journal.add(record)
                    taken += 1
    return taken
