"""Memory that a worker process writes pixels into and the main process reads them from.

A slot is a file without a name (on Linux), which a worker opens through its number in the main
process: nothing is left behind however either of them ends, and the size of /dev/shm, small in
containers, does not matter. A slot grows to the largest thing that was ever put into it.
"""

from __future__ import annotations

import math
import mmap
import os
import sys
import tempfile
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.errors import OutputError


class Slot:
    """A slot's side in the main process."""

    def __init__(self) -> None:
        if sys.platform == "linux":
            self._file = os.memfd_create("videomae-fast-clip")
            self.path = f"/proc/{os.getpid()}/fd/{self._file}"
        else:
            self._file, self.path = tempfile.mkstemp(prefix="videomae-fast-clip-")
        self._map: mmap.mmap | None = None

    def view(self, size: int) -> NDArray[np.uint8]:
        """The first `size` bytes, uint8 [size], without a copy: until the slot is used again."""
        if size == 0:
            return np.empty(0, dtype=np.uint8)
        if self._map is None or len(self._map) < size:
            self._map = mmap.mmap(self._file, os.fstat(self._file).st_size)
        return np.frombuffer(self._map, dtype=np.uint8, count=size)

    def close(self) -> None:
        """Gives the memory back; where views are left, with the last of them."""
        if self._map is not None:
            with suppress(BufferError):  # views are left
                self._map.close()
            self._map = None
        os.close(self._file)
        if sys.platform != "linux":
            os.unlink(self.path)


class SlotWriter:
    """A worker's side of all slots, which keeps them mapped.

    Mapping one anew for each clip took 4 ms for 10 MB, its copy 0.3.
    """

    def __init__(self) -> None:
        self._maps: dict[str, mmap.mmap] = {}

    def write(self, path: str, data: NDArray[np.uint8]) -> None:
        """Copies an array into the slot at ``path``; raises as :meth:`room` does."""
        np.copyto(self.room(path, data.shape), data)

    def room(self, path: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """An array of a shape in the slot at ``path``, to be written.

        Raises :class:`OutputError` where there is no memory for it (instead of dying of SIGBUS).
        """
        size = math.prod(shape)
        if size == 0:
            return np.empty(shape, dtype=np.uint8)
        try:
            memory = self._map(path, size)
        except OSError as error:
            raise OutputError(
                f"no memory to hand over a clip of {size / 1e6:.0f} MB "
                f"({error.strerror or error}): use fewer workers"
            ) from error
        return np.frombuffer(memory, dtype=np.uint8, count=size).reshape(shape)

    def _map(self, path: str, size: int) -> mmap.mmap:
        memory = self._maps.get(path)
        if memory is None or len(memory) < size:
            with open(path, "r+b") as file:
                if os.fstat(file.fileno()).st_size < size:
                    os.posix_fallocate(file.fileno(), 0, size)
                memory = mmap.mmap(file.fileno(), 0)
            self._maps[path] = memory
        return memory
