"""A list probed by an executor: manifests of its shards, put together to the whole one's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from videomae_fast.data.executors import Executor
from videomae_fast.data.files import write_lines
from videomae_fast.data.lists import load_list
from videomae_fast.data.lock import FolderLock
from videomae_fast.data.probe import ProbeSummary, probe
from videomae_fast.data.shards import Shard, shard_count, shard_name
from videomae_fast.recipes.source import ListFormat


@dataclass(frozen=True)
class ProbeShards:
    """A list that is looked at in shards.

    Attributes:
        list_path, format, root, name_pattern, decode, workers, time_limit: see
            :func:`~videomae_fast.data.probe.probe`.
        folder: for what the shards write.
        good: whether to list the lines that can be read.
    """

    list_path: str | Path
    folder: Path
    format: ListFormat = "pretrain"
    root: str | Path | None = None
    name_pattern: str = "img_{:05}.jpg"
    decode: bool = False
    good: bool = False
    workers: int = 1
    time_limit: float = 120.0

    def manifest(self, shard: Shard) -> Path:
        """The file of a shard."""
        return self.folder / f"{shard_name(shard)}.jsonl"

    def good_list(self, shard: Shard) -> Path:
        """The readable lines of a shard."""
        return self.folder / f"{shard_name(shard)}.csv"

    def __call__(self, shard: Shard) -> ProbeSummary:
        """Looks at a shard."""
        return probe(
            self.list_path,
            self.manifest(shard),
            format=self.format,
            root=self.root,
            name_pattern=self.name_pattern,
            decode=self.decode,
            good_list=self.good_list(shard) if self.good else None,
            workers=self.workers,
            time_limit=self.time_limit,
            shard=shard,
        )


def probe_in_shards(
    work: ProbeShards,
    output: Path,
    executor: Executor,
    *,
    good_list: Path | None = None,
    shards: int | None = None,
) -> ProbeSummary:
    """Looks at a list in shards; what is written is what :func:`~.probe.probe` writes.

    Args:
        work: the shards; their folder is removed in the end.
        output: the manifest's file.
        executor: does the shards.
        good_list: where to write the lines that can be read, if the work lists them.
        shards: how many; None: what suits the executor.

    Returns:
        What was found, in numbers.

    Raises:
        ListError, OutputError: as :func:`~.probe.probe` does.
        UsageError: another process works in the folder.
        BackendUnavailableError, VideoMAEFastError: as the executor's `run` does.
    """
    lines = len(load_list(work.list_path, work.format))
    count = shard_count(lines, shards or executor.shards())
    parts = [(part, count) for part in range(1, count + 1)]
    with FolderLock(work.folder, "probes a list"):
        found = executor.run(work, count)
        write_lines(output, _joined([work.manifest(part) for part in parts]))
        if good_list is not None:
            write_lines(good_list, _joined([work.good_list(part) for part in parts]))
    shutil.rmtree(work.folder, ignore_errors=True)
    summary = ProbeSummary()
    for one in found:
        for field in fields(summary):
            both = getattr(summary, field.name) + getattr(one, field.name)
            setattr(summary, field.name, both)
    return summary


def _joined(files: Sequence[Path]) -> Iterator[str]:
    for path in files:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            yield from file
