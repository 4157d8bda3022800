"""Every byte of a store, and every row, compared with what was written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from videomae_fast.data.loader.workers import WorkerPool
from videomae_fast.data.store.base import ClipStore, StoredClipError
from videomae_fast.data.store.head import Stored
from videomae_fast.data.store.opening import opened
from videomae_fast.data.store.tar import TarStore
from videomae_fast.progress import ProgressLine
from videomae_fast.recipes.source import remote_url

_ROWS: Final = 64  # that a process takes at a time


@dataclass(frozen=True)
class Rows:
    """Rows of a store that one process looks at."""

    path: str
    version: int
    begin: int
    end: int


def wrong_rows(rows: Rows) -> list[str]:
    """What is wrong with these rows: a line each."""
    store, found = opened(rows.path, rows.version), []
    for row in range(rows.begin, rows.end):
        try:
            known = store.row(row)
            if sha256(store.read(row)).digest() != known.sha256:
                where = store.place(row, known.source)
                found.append(f"{where}: its SHA-256 is not that of what was written")
        except StoredClipError as error:
            found.append(str(error))
    return found


def verify(
    store: ClipStore, *, workers: int = 1, progress: Callable[[int], ProgressLine] | None = None
) -> Iterator[str]:
    """Reads a store as a whole.

    Args:
        store: of any kind; this version of it is read.
        workers: processes.
        progress: from the number of rows to a line to keep up.

    Yields:
        What is wrong, a line each: files on this machine, then rows in no order. The index of a
        remote store was compared when it was fetched.
    """
    if isinstance(store, TarStore) and remote_url(store.path) is None:
        yield from _wrong_files(store)
    line = None if progress is None else progress(len(store))
    done = bad = 0
    jobs = (
        Rows(store.path, store.version, begin, min(begin + _ROWS, len(store)))
        for begin in range(0, len(store), _ROWS)
    )
    with WorkerPool(wrong_rows, workers=workers) as pool:
        for outcome in pool.run(jobs):
            if outcome.result is None:
                assert outcome.problem is not None
                wrong = [
                    f"{store.path} rows {outcome.task.begin} to {outcome.task.end - 1}: "
                    f"{outcome.problem.reason}"
                ]
            else:
                wrong = outcome.result
            done, bad = done + outcome.task.end - outcome.task.begin, bad + len(wrong)
            if line is not None:
                line.update(done, bad=bad)
            yield from wrong
    if line is not None:
        line.finish(done, bad=bad)


def _wrong_files(store: TarStore) -> Iterator[str]:
    """Files of the store that are not as they were written; of tar files their other members are
    what only this tells."""
    for part in store.parts:
        for wanted in (*part.index.values(), *part.tars):
            path = Path(store.path) / wanted.name
            try:
                found = Stored.of(path, wanted.name)
            except OSError as error:
                yield f"{path}: can't be read: {error.strerror or error}"
                continue
            if found != wanted:
                yield (
                    f"{path}: has {found.bytes:,} bytes and CRC {found.crc32:08x}, written were "
                    f"{wanted.bytes:,} and {wanted.crc32:08x}"
                )
