"""What decoders open: a file by its path, or the bytes of a video that lies anywhere else."""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from videomae_fast.data.errors import DecodeError


class VideoSource(Protocol):
    """A video that has no path of its own and is loaded when it is opened: a row of a store."""

    @property
    def name(self) -> str:
        """What it is called, with where it lies; its ending is that of its file."""
        ...

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    @property
    def checksum(self) -> int:
        """CRC-32 of its bytes."""
        ...

    def load(self) -> VideoBytes:
        """Its bytes.

        Raises:
            DecodeError: they can't be had; the message says why.
        """
        ...


@dataclass(frozen=True, eq=False)
class VideoBytes:
    """A video in memory; a :class:`VideoSource` that is loaded.

    Attributes:
        name: see :class:`VideoSource`; FFmpeg looks at the ending where the bytes say too little.
        content: of the file.
        checksum: CRC-32 of the content.
    """

    name: str
    content: bytes
    checksum: int

    @property
    def size(self) -> int:
        return len(self.content)

    def load(self) -> VideoBytes:
        return self


Video = Path | VideoSource
"""What is given to a decoder."""

Content = Path | VideoBytes
"""What a decoder reads: :func:`taken` makes it of a :data:`Video`."""


def taken(video: Video) -> Content:
    """A video as it is read: loaded where it has no path, and looked at whether there is any.

    Args:
        video: path of a file, or what lies elsewhere.

    Returns:
        The path, or the bytes.

    Raises:
        DecodeError: it can't be read; the message says why.
    """
    if isinstance(video, Path):
        _check_file(video)
        return video
    loaded = video.load()
    if not loaded.content:
        raise DecodeError("0 bytes")
    return loaded


def opened(content: Content) -> BinaryIO:
    """The bytes as a file-like object that can seek, with a ``name``.

    Raises:
        OSError: of a path that can't be opened.
    """
    return content.open("rb") if isinstance(content, Path) else _Named(content)


class _Named(io.BytesIO):
    """Bytes with the name of their file, where PyAV looks for one."""

    def __init__(self, video: VideoBytes) -> None:
        super().__init__(video.content)
        self.name = video.name


def size_of(content: Content) -> int:
    """Bytes; an ``OSError`` of a path that is not there."""
    return os.path.getsize(content) if isinstance(content, Path) else content.size


def identity(content: Content) -> tuple[str, int, int]:
    """What a content is known by for as long as it stays the same: name, size, and the time of its
    last change in ns or a checksum."""
    if not isinstance(content, Path):
        return content.name, content.size, content.checksum
    status = os.stat(content)
    return os.path.abspath(content), status.st_size, status.st_mtime_ns


def _check_file(path: Path) -> None:
    """Raises DecodeError where a path is no file that can be read."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise DecodeError("is a folder, not a video (a list names frames `folder start total`)")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for a writer
            raise DecodeError("is no regular file but a pipe, a socket or a device")
        if status.st_size == 0:
            raise DecodeError("0 bytes")
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # a third of the time of path.open
        try:
            os.read(file, 1)
        finally:
            os.close(file)
    except FileNotFoundError as error:
        raise DecodeError("no such file") from error
    except OSError as error:
        raise DecodeError(f"can't be read: {error.strerror or error}") from error
    except ValueError as error:  # a null byte
        raise DecodeError(f"can't be a path: {error}") from error
