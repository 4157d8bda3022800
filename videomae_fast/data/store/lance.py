"""The second kind of store: a Lance data set, a row per clip, its bytes a blob beside the columns.

The package is imported when such a store is opened or written, never with this one: its threads do
not outlive a fork, and loader processes are forked.
"""

from __future__ import annotations

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

_COLUMNS: Final = tuple(Row.__dataclass_fields__)


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
            *(pyarrow.field(name, kinds[name]) for name in _COLUMNS),
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
        package = lance()
        self.path = path
        try:
            self._data = package.dataset(path, version=version)
            missing = {*_COLUMNS, CLIP} - set(self._data.schema.names)
            self._count = int(self._data.count_rows())
        except Exception as error:  # its errors are of several kinds, and not documented
            asked = "" if version is None else f" at version {version}"
            raise StoreError(f"{path}: can't be opened{asked}: {sentence(error)}") from error
        if missing:
            raise StoreError(
                f"{path}: a Lance data set without {', '.join(sorted(missing))}: videomae-fast "
                "store import writes what is read here"
            )
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
            (said,) = self._data.take([row], columns=list(_COLUMNS)).to_pylist()
            known = _row(said)
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
                found.update(b"%s\0%d\0%s" % (one["source"], one["label"], one["sha256"]))
        return found.hexdigest()

    def close(self) -> None:
        """Nothing is held that would have to be let go of."""


def _row(said: dict[str, Any]) -> Row:
    texts = {name: os.fsdecode(said[name]) for name in ("name", "source")}
    return Row(**{**said, **texts})
