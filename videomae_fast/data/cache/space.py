"""The bytes that a cache may take, kept to by all processes that fill it together."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from videomae_fast.data.cache.entry import (
    SUFFIX,
    DamagedEntryError,
    EntryReader,
    Origin,
    OtherVersionError,
    open_entry,
)

# Why a video gets no place.
CACHED: Final = "is cached already"
IN_WORK: Final = "another process is filling it"
FULL: Final = "the limit is reached"

_PARTIAL: Final = ".partial"
_TOTAL: Final = "total"
_DIGITS: Final = 20


class Space:
    """A folder's entries and their limit in bytes.

    What is being written has another name and its full size from the beginning, so the sizes of
    the files are what is taken or promised; the file ``total`` holds their sum. Every change of
    names and sizes is made under the lock of that file. A writer holds a lock on what it writes;
    what a killed one left behind is thereby known, and removed when a process first looks at the
    folder, which then sums up the sizes anew.

    All methods raise ``OSError`` where the folder can't be written.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._scanned = False

    def reserve(self, origin: Origin, size: int) -> Place | str:
        """A place of ``size`` bytes for the frames of ``origin``, or the reason why not.

        An entry that can't be served (damaged, of another version or of an older state of the
        video) is removed, as is what a killed process left of it.
        """
        entry = self.folder / origin.name
        with self._locked() as total:
            if _serves(entry, origin):
                return CACHED
            partial = self.folder / (origin.name + _PARTIAL)
            freed = _size(entry) + _size(partial)
            if not freed and total.value + size > self.limit_bytes:
                return FULL  # without touching the folder: every miss comes here then
            handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                if not _lock(handle):
                    os.close(handle)
                    return IN_WORK
                # First less, then more: a kill in between leaves a total that is too large.
                entry.unlink(missing_ok=True)
                os.ftruncate(handle, 0)
                total.set(total.value - freed)
                if total.value + size > self.limit_bytes:
                    partial.unlink()
                    os.close(handle)
                    return FULL
                total.set(total.value + size)
                os.ftruncate(handle, size)
            except BaseException:
                os.close(handle)
                raise
        return Place(self, handle, partial, entry, size)

    def discard(self, origin: Origin, damaged: EntryReader) -> None:
        """Removes an entry whose frames turned out to be damaged, unless it was replaced already.

        What :meth:`reserve` sees of an entry, its header and size, would still pass.
        """
        entry = self.folder / origin.name
        with self._locked() as total:
            if damaged.same_file(entry):
                freed = _size(entry)
                entry.unlink()
                total.set(total.value - freed)

    def room(self) -> int:
        """Bytes that are left, at least 0."""
        with self._locked() as total:
            return max(0, self.limit_bytes - total.value)

    def scan(self) -> int:
        """Removes what killed processes left behind; the bytes that are taken."""
        self._scanned = False
        with self._locked() as total:
            return total.value

    @contextmanager
    def _locked(self) -> Iterator[_Total]:
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.folder / _TOTAL, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            total = _Total(handle)
            if not self._scanned or total.value < 0:
                os.ftruncate(handle, 0)
                total.set(self._sum())
                self._scanned = True
            yield total
        finally:
            os.close(handle)  # and with it the lock

    def _sum(self) -> int:
        taken = 0
        with os.scandir(self.folder) as items:
            for item in items:
                if item.name.endswith(SUFFIX + _PARTIAL) and _abandoned(item.path):
                    os.unlink(item.path)
                elif item.name.endswith((SUFFIX, SUFFIX + _PARTIAL)):
                    taken += item.stat(follow_symlinks=False).st_size
        return taken


class Place:
    """Room for an entry, to be used in a ``with`` block, which gives it back unless published."""

    def __init__(self, space: Space, handle: int, partial: Path, entry: Path, size: int) -> None:
        self._space, self._partial, self._entry = space, partial, entry
        self._handle, self._size = handle, size
        self._published = False

    def __enter__(self) -> Self:
        try:
            # Takes the blocks before anything is decoded for them; a file system that has no
            # such call says when it is full while it is written to.
            os.posix_fallocate(self._handle, 0, self._size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                self._give_back()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        if not self._published:
            self._give_back()

    def write(self, data: bytes | memoryview) -> None:
        """Writes the next bytes."""
        view = memoryview(data).cast("B")
        while len(view):
            view = view[os.write(self._handle, view) :]

    def publish(self) -> None:
        """Makes the entry appear, after it is safe on the disk."""
        os.fsync(self._handle)
        with self._space._locked():
            os.replace(self._partial, self._entry)
        self._published = True
        os.close(self._handle)

    def _give_back(self) -> None:
        try:
            with self._space._locked() as total:
                taken = _size(self._partial)
                self._partial.unlink(missing_ok=True)
                total.set(total.value - taken)
        finally:
            os.close(self._handle)


class _Total:
    """The sum of sizes in the locked file; -1 where there is none in it."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        text = os.pread(handle, _DIGITS + 1, 0)
        self.value = int(text) if len(text) == _DIGITS and text.isdigit() else -1

    def set(self, value: int) -> None:
        self.value = max(0, value)
        os.pwrite(self._handle, f"{self.value:0{_DIGITS}}".encode(), 0)


def _serves(entry: Path, origin: Origin) -> bool:
    try:
        reader = open_entry(entry, origin)
    except (DamagedEntryError, OtherVersionError):
        return False
    if reader is not None:
        reader.close()
    return reader is not None


def _lock(handle: int) -> bool:
    """Whether this process could take the lock of a file that is being written."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _abandoned(path: str) -> bool:
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return _lock(handle)
    finally:
        os.close(handle)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0
