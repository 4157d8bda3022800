"""Stores by their path: which kind one is, opened once per process, and a row as a video."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Final

from videomae_fast.data.decoders.content import VideoBytes
from videomae_fast.data.errors import StoreUnreachableError
from videomae_fast.data.store.base import ClipStore, Row, StoredClipError, StoreError
from videomae_fast.data.store.lance import LanceStore, is_lance_store
from videomae_fast.data.store.remote import open_remote_store
from videomae_fast.data.store.remote_lance import is_lance_url, open_remote_lance_store
from videomae_fast.data.store.tar import is_tar_store, open_tar_store
from videomae_fast.recipes.source import remote_url

_HELD: Final = 16  # open stores


def is_store(path: str | Path) -> bool:
    """Whether there is a store of any kind at a path; a URL is believed."""
    if remote_url(path) is not None:
        return True
    path = Path(path)
    return is_tar_store(path) or is_lance_store(path)


def open_store(path: str | Path, version: int | None = None) -> ClipStore:
    """Opens a store.

    Args:
        path: of its folder, or a URL: of a Lance data set, where that ends in ``.lance``.
        version: None: the newest.

    Returns:
        The store, at this version for as long as it is open.

    Raises:
        StoreError: there is none, it can't be read, or it has no such version.
        BackendUnavailableError: the package that reads it is not installed.
    """
    try:
        return _open(path, version)
    except StoreUnreachableError as error:
        raise StoreError(str(error)) from error


def _open(path: str | Path, version: int | None) -> ClipStore:
    """As :func:`open_store`; where it can't be reached it says so, since that may pass."""
    if (url := remote_url(path)) is not None:
        opens = open_remote_lance_store if is_lance_url(url) else open_remote_store
        return opens(url, version)
    path = Path(path)
    if is_tar_store(path):
        return open_tar_store(path, version)
    if is_lance_store(path):
        return LanceStore(str(path), version)
    raise StoreError(
        f"{path}: no store: there is no store.json in it, and it is no Lance data set "
        "(videomae-fast store import makes one)"
    )


@lru_cache(_HELD)
def opened(path: str, version: int) -> ClipStore:
    """The store of this process, opened when it is first read here. A loader process is started
    without one, as its files and threads would not outlive a fork.

    Raises:
        StoreUnreachableError: it can't be reached.
        StoreError: otherwise as :func:`open_store`.
    """
    return _open(path, version)


@dataclass(frozen=True)
class StoredClip:
    """A row of a store as a video: small, for other processes; the store is opened there.

    Attributes:
        path, version: of the store.
        number: of the row.
    """

    path: str
    version: int
    number: int

    def __str__(self) -> str:
        return f"{self.source} ({self.path} row {self.number})"

    @property
    def store(self) -> ClipStore:
        return opened(self.path, self.version)

    @cached_property
    def known(self) -> Row:
        """What the store knows of it; StoredClipError where its index is damaged."""
        return self.store.row(self.number)

    @property
    def source(self) -> str:
        """Where it came from, in words where the index is damaged there."""
        try:
            return self.known.source
        except StoredClipError:
            return "a clip that the damaged index does not name"

    @property
    def name(self) -> str:
        """A file's name, which no other clip of any store has."""
        return f"{self.path} row {self.number} {self.known.name}"

    @property
    def size(self) -> int:
        return self.known.size

    @property
    def checksum(self) -> int:
        return self.known.crc32

    def load(self) -> VideoBytes:
        """Its bytes. What was read last is kept: a video may be opened several times for a clip.

        Raises:
            StoredClipError: they can't be read, or are damaged.
        """
        return _loaded(self)


@lru_cache(1)
def _loaded(clip: StoredClip) -> VideoBytes:
    return VideoBytes(clip.name, clip.store.read(clip.number), clip.checksum)
