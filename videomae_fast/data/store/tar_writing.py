"""A part of a tar store as it is written: there as a whole, or not at all."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from videomae_fast.data.errors import OutputError
from videomae_fast.data.lock import FolderLock
from videomae_fast.data.store.base import StoreError
from videomae_fast.data.store.head import Part, Stored, write_head
from videomae_fast.data.store.incoming import Facts, Incoming
from videomae_fast.data.store.index import FILES, IndexBuilder
from videomae_fast.data.store.tar import is_tar_store, local_parts

_PARTIAL: Final = ".partial"


class TarWriter:
    """Adds a part to a tar store; to be used in a ``with`` block, and committed.

    A part is a folder, ``part-00001``, that has another name until :meth:`commit`. A kill leaves
    the store as it was, and the next writer removes what is left.

    Args:
        folder: of the store; made where missing.
        tar_bytes: after which the next tar file begins.

    Raises:
        StoreError: what is there can't be read.
        OutputError, UsageError: it can't be written, or another process writes there.
    """

    def __init__(self, folder: Path, tar_bytes: int) -> None:
        self.folder = folder
        self._tar_bytes, self._made = tar_bytes, not folder.exists()
        self._lock = FolderLock(folder, "writes to the store")
        try:
            self._before = local_parts(folder) if is_tar_store(folder) else []
            self._first = sum(part.rows for part in self._before)
            self._name = f"part-{len(self._before) + 1:05d}"
            self._partial = folder / f"{_PARTIAL}-{self._name}"
            with self._blaming():
                self._remove_leftovers()
                self._partial.mkdir()
        except BaseException:
            self._lock.close()
            raise
        self._index = IndexBuilder()
        self._tars: list[str] = []  # by number, relative to the store
        self._tar: tarfile.TarFile | None = None
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._tar is not None:
            self._tar.close()
        shutil.rmtree(self._partial, ignore_errors=True)
        self._lock.close()
        if self._made and not is_tar_store(self.folder):
            with suppress(OSError):  # somebody else put something there
                self.folder.rmdir()

    def __len__(self) -> int:
        """Clips so far."""
        return len(self._index)

    def add(self, clip: Incoming, facts: Facts, content: bytes) -> None:
        """Writes a clip, with what is known of it beside it, behind those that are there.

        Raises:
            OutputError: it can't be written.
        """
        key = f"{self._first + len(self._index):09d}"
        row = facts.row(clip, key + clip.suffix)
        about = {
            "source": row.source,
            "label": row.label,
            "frames": row.frames,
            "rate": round(row.rate, 6),
            "longest_gop": row.longest_gop,
            "sha256": row.sha256.hex(),
        }
        with self._blaming():
            tar = self._room()
            offset = _write_member(tar, row.name, content)
            self._index.add(row, len(self._tars) - 1, offset)
            _write_member(tar, f"{key}.json", json.dumps(about).encode())
            if row.label >= 0:
                _write_member(tar, f"{key}.cls", str(row.label).encode())
        self.size += len(content)

    def take(self, tar: Path) -> int:
        """Makes a tar file one of the store's: where it is, if that is in the store's folder, and
        else as a copy.

        Returns:
            Its number, for :meth:`add_member`.

        Raises:
            StoreError: it is the store's already, or another one of this name was taken.
            OutputError: it can't be copied.
        """
        home = self.folder.resolve()
        inside = tar.resolve().is_relative_to(home)
        name = str(tar.resolve().relative_to(home)) if inside else f"{self._name}/{tar.name}"
        if name in {one.name for part in self._before for one in part.tars} | set(self._tars):
            raise StoreError(f"{self.folder} has {name} already: leave {tar} out, or rename it")
        if not inside:
            with self._blaming():
                shutil.copyfile(tar, self._partial / tar.name)
        self._tars.append(name)
        return len(self._tars) - 1

    def add_member(self, clip: Incoming, facts: Facts, name: str, tar: int, offset: int) -> None:
        """Adds a clip that a tar file which was taken holds at an offset."""
        self._index.add(facts.row(clip, name), tar, offset)
        self.size += facts.size

    def commit(self) -> int:
        """Makes what was written the store's next version.

        Returns:
            The version.

        Raises:
            OutputError: it can't be written; the store is as it was.
        """
        with self._blaming():
            self._close_tar()
            self._index.write({what: self._partial / f"{what}.npy" for what in FILES})
            part = Part(
                len(self._index),
                {what: self._stored(f"{self._name}/{what}.npy") for what in FILES},
                tuple(self._stored(name) for name in self._tars),
            )
            for path in (*self._partial.iterdir(), self._partial):
                _sync(path)
            self._lock.check()
            os.replace(self._partial, self.folder / self._name)
            _sync(self.folder)
        write_head(self.folder, [*self._before, part])
        with self._blaming():
            _sync(self.folder)
        return len(self._before) + 1

    def _stored(self, name: str) -> Stored:
        """Size and checksum of a file by the name that it will have."""
        own = name.removeprefix(f"{self._name}/")
        where = self.folder / name if own == name else self._partial / own
        return Stored.of(where, name)

    def _room(self) -> tarfile.TarFile:
        """The tar file that is written to."""
        if self._tar is not None and self._tar.offset >= self._tar_bytes:
            self._close_tar()
        if self._tar is None:
            name = f"clips-{len(self._tars):05d}.tar"
            self._tars.append(f"{self._name}/{name}")
            self._tar = tarfile.TarFile(self._partial / name, "w", format=tarfile.PAX_FORMAT)
        return self._tar

    def _close_tar(self) -> None:
        if self._tar is not None:
            self._tar.close()
        self._tar = None

    def _remove_leftovers(self) -> None:
        """What writers that were killed left: a part that was not finished, or that no head names.

        A folder of such a name without an index is none of theirs.
        """
        for path in self.folder.glob(f"{_PARTIAL}-part-*"):
            shutil.rmtree(path)
        unnamed = self.folder / self._name
        if unnamed.exists():
            if not (unnamed / f"{FILES[0]}.npy").exists():
                raise StoreError(f"{unnamed} is in the way of the store's next part: rename it")
            shutil.rmtree(unnamed)

    @contextmanager
    def _blaming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"{self.folder}: can't be written: {error.strerror or error}. The store is as it "
                "was: make room or mend it, and run the same command again"
            ) from error


def _write_member(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Writes a member; where its bytes begin."""
    about = tarfile.TarInfo(name)
    about.size, about.mode = len(content), 0o644
    tar.addfile(about, io.BytesIO(content))
    return tar.offset - -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
