"""The video that was read last stays open: its next key frame needs no new look at all packets."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from videomae_fast.data.decoders import Decoder, VideoReader


class _Kept(NamedTuple):
    """What is open, and of which file as it was then."""

    identity: tuple[str | int, ...]
    video: VideoReader


class _Last(threading.local):
    """Of each thread, since a reader has a place in its file."""

    kept: _Kept | None = None

    def drop(self) -> None:
        kept, self.kept = self.kept, None
        if kept is not None:
            kept.video.close()


_LAST = _Last()


@contextmanager
def kept_open(path: Path, decoder: Decoder) -> Iterator[VideoReader]:
    """A video, opened anew where it is another file than the last one, or was changed.

    An error while it is in use closes it.

    Raises:
        DecodeError: as ``decoder.open`` does.
    """
    try:
        about = os.stat(path)
    except OSError:
        _LAST.drop()
        decoder.open(path).close()  # which says what is wrong with it
        raise
    # A forked process shares the place in the file with its parent: it opens its own
    identity = (
        os.getpid(), decoder.name, str(path), about.st_ino, about.st_size, about.st_mtime_ns
    )  # fmt: skip
    if _LAST.kept is None or _LAST.kept.identity != identity:
        _LAST.drop()
        _LAST.kept = _Kept(identity, decoder.open(path))
    try:
        yield _LAST.kept.video
    except BaseException:
        _LAST.drop()
        raise
