"""A version of a Lance store as it is written: there as a whole, or not at all."""

from __future__ import annotations

import os
import queue
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Self

from videomae_fast.data.errors import OutputError, sentence
from videomae_fast.data.lock import FolderLock
from videomae_fast.data.store.incoming import Facts, Incoming
from videomae_fast.data.store.lance import CLIP, STORAGE, LanceStore, is_lance_store, lance, schema

_BATCH_BYTES: Final = 1 << 26
_LOOK: Final = 0.1


class _AbandonedError(Exception):
    """Raised where Lance waits for clips, so that it commits nothing."""


class LanceWriter:
    """Adds rows to a Lance store; to be used in a ``with`` block, and committed.

    Lance takes clips as a stream, in a thread of its own, and makes them a version at the end.

    Args:
        folder: of the data set; made where missing.

    Raises:
        BackendUnavailableError: Lance is not installed.
        StoreError: what is there is none of this library's.
        OutputError, UsageError: it can't be written, or another process writes there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.size = folder, 0
        self._schema = schema()
        self._new = not is_lance_store(folder)
        self._first = 0 if self._new else len(LanceStore(str(folder)))
        self._made = not folder.exists()
        self._lock = FolderLock(folder, "writes to the store")
        self._rows: list[dict[str, Any]] = []
        self._held = self._count = 0
        self._batches: queue.Queue[Any] = queue.Queue(maxsize=1)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lance-writer")
        self._written: Future[int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._written is not None and not self._written.done():
            self._put(_AbandonedError())
        self._thread.shutdown()
        self._lock.close()
        if self._made and not is_lance_store(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)

    def __len__(self) -> int:
        """Clips so far."""
        return self._count

    def add(self, clip: Incoming, facts: Facts, content: bytes) -> None:
        """Hands over a clip.

        Raises:
            OutputError: those before can't be written.
        """
        row = asdict(facts.row(clip, f"{self._first + self._count:09d}{clip.suffix}"))
        for text in ("name", "source"):
            row[text] = os.fsencode(row[text])
        self._rows.append({**row, CLIP: content})
        self._count += 1
        self.size += len(content)
        self._held += len(content)
        if self._held >= _BATCH_BYTES:
            self._flush()

    def commit(self) -> int:
        """Makes what was handed over the store's next version.

        Returns:
            The version.

        Raises:
            OutputError: it can't be written; the store is as it was.
        """
        self._flush()
        self._lock.check()
        self._put(None)
        assert self._written is not None
        return self._result(self._written)

    def _flush(self) -> None:
        import pyarrow

        if self._written is None:
            self._written = self._thread.submit(self._write)
        self._put(pyarrow.RecordBatch.from_pylist(self._rows, schema=self._schema))
        self._rows, self._held = [], 0

    def _put(self, item: Any) -> None:
        """Hands an item to the thread, unless that has ended."""
        assert self._written is not None
        while True:
            try:
                self._batches.put(item, timeout=_LOOK)
                return
            except queue.Full:
                if self._written.done():
                    if not isinstance(item, _AbandonedError):
                        self._result(self._written)
                    return

    def _result(self, written: Future[int]) -> int:
        try:
            return written.result()
        except Exception as error:  # its errors are of several kinds, and not documented
            raise OutputError(
                f"{self.folder}: can't be written: {sentence(error)}. The store is as it was: make "
                "room or mend it, and run the same command again"
            ) from error

    def _write(self) -> int:
        import pyarrow

        reader = pyarrow.RecordBatchReader.from_batches(self._schema, self._stream())
        mode = "create" if self._new else "append"
        written = lance().write_dataset(
            reader, str(self.folder), mode=mode, data_storage_version=STORAGE
        )
        return int(written.version)

    def _stream(self) -> Iterator[Any]:
        while (item := self._batches.get()) is not None:
            if isinstance(item, _AbandonedError):
                raise item
            yield item
