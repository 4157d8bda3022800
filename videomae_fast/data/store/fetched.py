"""A stored clip that is in memory already, for the process that decodes it."""

from __future__ import annotations

from dataclasses import dataclass

from videomae_fast.data.decoders.content import VideoBytes
from videomae_fast.data.errors import DecodeError
from videomae_fast.data.store.opening import StoredClip


@dataclass(frozen=True)
class FetchedClip:
    """A stored clip whose bytes lie in memory of the process that fetched them.

    Attributes:
        clip: the row.
        name, size, checksum: see :class:`~videomae_fast.data.decoders.content.VideoSource`.
        path: of the memory.
        failed: why there are no bytes, or None.
    """

    clip: StoredClip
    name: str
    size: int
    checksum: int
    path: str = ""
    failed: DecodeError | None = None

    def load(self) -> VideoBytes:
        """The bytes, which were compared with their checksum when they came.

        Raises:
            StoredClipError: they could not be had.
        """
        if self.failed is not None:
            raise self.failed
        with open(self.path, "rb") as file:
            return VideoBytes(self.name, file.read(self.size), self.checksum)
