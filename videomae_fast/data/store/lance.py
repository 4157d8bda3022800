"""The second kind of store: a Lance data set, a row per clip, its bytes a blob beside the columns.

The package is imported when such a store is opened or written, never with this one: its threads do
not outlive a fork, and loader processes are forked.
"""

from __future__ import annotations

import json
import os
import zlib
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.errors import sentence
from videomae_fast.data.store.base import ClipStore, Row, StoredClipError, StoreError
from videomae_fast.errors import BackendUnavailableError
from videomae_fast.extras import install

CLIP: Final = "clip"
STORAGE: Final = "2.1"
"""Lance's format of data files, which stays what it is while its versions move on."""

COLUMNS: Final = tuple(Row.__dataclass_fields__)


def schema() -> Any:
    """The columns: those of :class:`~.base.Row`, and the clip.

    Raises:
        BackendUnavailableError: Lance is not installed.
    """
    lance()
    import pyarrow

    kinds = {
        "name": pyarrow.binary(),  # paths are bytes
        "source": pyarrow.binary(),
        "size": pyarrow.int64(),
        "crc32": pyarrow.uint32(),
        "sha256": pyarrow.binary(32),
        "frames": pyarrow.int32(),
        "rate": pyarrow.float32(),
        "longest_gop": pyarrow.int32(),
        "label": pyarrow.int32(),
    }
    blob = {"lance-encoding:blob": "true"}
    return pyarrow.schema(
        [
            *(pyarrow.field(name, kinds[name]) for name in COLUMNS),
            pyarrow.field(CLIP, pyarrow.large_binary(), metadata=blob),
        ]
    )


def lance() -> Any:
    """The package.

    Raises:
        BackendUnavailableError: it is not installed, or can't be loaded.
    """
    if find_spec("lance") is None:
        raise BackendUnavailableError(f"Lance is not installed: {install('lance')}")
    try:
        import lance
    except (ImportError, OSError) as error:
        raise BackendUnavailableError(
            f"Lance is installed but can't be loaded: {sentence(error)}"
        ) from error
    return lance


def is_lance_store(folder: Path) -> bool:
    """Whether a folder is a Lance data set."""
    return (folder / "_versions").is_dir()


class LanceStore(ClipStore):
    """Clips in a Lance data set.

    Args:
        path: of the data set.
        version: Lance's number; None: the newest.

    Raises:
        StoreError: it can't be read, is none of this library's, or has no such version.
        BackendUnavailableError: Lance is not installed.
    """

    def __init__(self, path: str, version: int | None = None) -> None:
        self.path = path
        self._data, self._count = open_data_set(path, version)
        self.version = int(self._data.version)
        self._labels: NDArray[np.int32] | None = None
        self._last: tuple[int, Row] | None = None

    def __len__(self) -> int:
        return self._count

    def row(self, row: int) -> Row:
        last = self._last  # a clip is asked for again when it is read
        if last is not None and last[0] == row:
            return last[1]
        self.check(row)
        try:
            (said,) = self._data.take([row], columns=list(COLUMNS)).to_pylist()
            known = row_of(said)
        except Exception as error:
            raise StoredClipError(self.place(row), f"can't be read: {sentence(error)}") from error
        self._last = (row, known)
        return known

    def read(self, row: int) -> bytes:
        known = self.row(row)
        where = self.place(row, known.source)
        try:
            (blob,) = self._data.take_blobs(CLIP, indices=[row])
            with blob:
                content: bytes = blob.readall()
        except Exception as error:
            raise StoredClipError(where, f"can't be read: {sentence(error)}") from error
        if len(content) != known.size or zlib.crc32(content) != known.crc32:
            raise StoredClipError(where, "its bytes are not those that were written")
        return content

    def label(self, row: int) -> int:
        return int(self.labels[self.check(row)])

    @property
    def labels(self) -> NDArray[np.int32]:
        if self._labels is None:
            table = self._data.to_table(columns=["label"])
            self._labels = table["label"].to_numpy().astype(np.int32)
        return self._labels

    def containing(self, part: bytes) -> NDArray[np.bool_]:
        import pyarrow.compute

        hits = [
            pyarrow.compute.match_substring(batch["source"], part).to_numpy(zero_copy_only=False)
            for batch in self._data.to_batches(columns=["source"])
        ]
        found: NDArray[np.bool_] = np.concatenate(hits)
        return found

    def digest(self) -> str:
        found = sha256()
        for batch in self._data.to_batches(columns=["source", "label", "sha256"]):
            for one in batch.to_pylist():
                found.update(named_by(one))
        return found.hexdigest()

    def identity(self) -> str:
        return identity_of(self._data, self._count)

    def close(self) -> None:
        """Nothing is held that would have to be let go of."""


def open_data_set(path: str, version: int | None, **options: Any) -> tuple[Any, int]:
    """A data set that has this library's columns, and how many rows.

    Args:
        path: of its folder, or a URL.
        version: Lance's number; None: the newest.
        options: what else Lance takes.

    Raises:
        StoreError: it can't be read, is none of this library's, or has no such version.
        BackendUnavailableError: Lance is not installed.
    """
    package = lance()
    try:
        data = package.dataset(path, version=version, **options)
        missing = {*COLUMNS, CLIP} - set(data.schema.names)
        count = int(data.count_rows())
    except Exception as error:  # its errors are of several kinds, and not documented
        asked = "" if version is None else f" at version {version}"
        raise StoreError(f"{path}: can't be opened{asked}: {sentence(error)}") from error
    if missing:
        raise StoreError(
            f"{path}: a Lance data set without {', '.join(sorted(missing))}: videomae-fast store "
            "import writes what is read here"
        )
    return data, count


def identity_of(data: Any, count: int) -> str:
    """See :meth:`~.base.ClipStore.identity`; Lance names data files at random."""
    files = [[one.path for one in part.metadata.files] for part in data.get_fragments()]
    said = json.dumps([int(data.version), count, files])
    return sha256(said.encode()).hexdigest()


def named_by(said: dict[str, Any]) -> bytes:
    """What a row, as Lance says it, adds to its version's digest."""
    return b"%s\0%d\0%s" % (said["source"], said["label"], said["sha256"])


def row_of(said: dict[str, Any]) -> Row:
    """A row as Lance says it: its columns by name."""
    texts = {name: os.fsdecode(said[name]) for name in ("name", "source")}
    return Row(**{**said, **texts})
