"""decord, optional: the decoder of the official code.

It has no AV1, is known to crash and leak on some files (dmlc/decord issues 157, 208), and version
0.6.0 returns wrong frames after a seek in open groups of pictures and in MPEG-TS, FLV, AVI and
fragmented MP4, and turns mirrored videos: such files are refused, for PyAV to read. Its readers are
opened for one clip and let go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from videomae_fast.data.decoders.agreement import check_numbers
from videomae_fast.data.decoders.base import Frames, ReaderBase, check_ids
from videomae_fast.data.decoders.content import Video, opened, taken
from videomae_fast.data.errors import DecodeError
from videomae_fast.extras import install


def why_not() -> str | None:
    """Why decord can't be used here, or None."""
    if find_spec("decord") is None:
        return f"decord is not installed: {install('decord')}"
    try:
        import decord  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        return f"decord is installed but can't be loaded: {_first_line(error)}"
    return None


class DecordReader(ReaderBase):
    """A video through decord, one thread; see the contract of ``VideoReader``.

    Raises :class:`DecodeError` for a file that decord can't open, that has no frame, or whose
    frames it may number differently.
    """

    def __init__(self, video: Video) -> None:
        import decord

        content = taken(video)
        file = str(content) if isinstance(content, Path) else opened(content)
        with _translated():
            self._reader: Any = decord.VideoReader(file, ctx=decord.cpu(0), num_threads=1)
            self._frame_count = len(self._reader)
        if self._frame_count < 1:
            raise DecodeError("no frames in the video stream")
        check_numbers(content, "decord", self._frame_count)

    @property
    def frame_count(self) -> int:
        return self._frame_count

    def read(self, ids: Sequence[int]) -> Frames:
        numbers = check_ids(ids, self._frame_count)
        with _translated():
            frames: Frames = self._reader.get_batch(numbers).asnumpy()
        return frames

    def close(self) -> None:
        self._reader = None


@contextmanager
def _translated() -> Iterator[None]:
    from decord import DECORDError

    try:
        yield
    # decord reports bad files with its own error and with RuntimeError; names must be UTF-8.
    except (DECORDError, RuntimeError, UnicodeEncodeError) as error:
        raise DecodeError(f"decord: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
