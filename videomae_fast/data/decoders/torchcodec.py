"""torchcodec on the CPU, optional; it uses the FFmpeg libraries of the system."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from videomae_fast.data.decoders.agreement import check_numbers
from videomae_fast.data.decoders.base import Frames, ReaderBase, check_ids
from videomae_fast.data.decoders.content import Video, taken
from videomae_fast.data.errors import DecodeError
from videomae_fast.extras import install


def why_not() -> str | None:
    """Why torchcodec can't be used here, or None."""
    if find_spec("torchcodec") is None:
        return f"torchcodec is not installed: {install('torchcodec')}"
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        return (
            "torchcodec is installed but can't be loaded (it needs the system's FFmpeg libraries "
            f"and a matching torch): {_first_line(error)}"
        )
    return None


class TorchCodecReader(ReaderBase):
    """A video through torchcodec, one thread; see the contract of ``VideoReader``.

    Raises :class:`DecodeError` for a file that torchcodec can't open, that has no frame, or whose
    frames it may number differently.
    """

    def __init__(self, video: Video) -> None:
        from torchcodec.decoders import VideoDecoder

        content = taken(video)
        file = str(content) if isinstance(content, Path) else content.content
        with translated():
            # "exact" scans the file, so that numbers follow the frames and not the frame rate.
            self._decoder = VideoDecoder(
                file, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact"
            )
            self._frame_count = int(self._decoder.metadata.num_frames or 0)
        if self._frame_count < 1:
            raise DecodeError("no frames in the video stream")
        check_numbers(content, "torchcodec", self._frame_count)

    @property
    def frame_count(self) -> int:
        return self._frame_count

    def read(self, ids: Sequence[int]) -> Frames:
        numbers = check_ids(ids, self._frame_count)
        with translated():
            frames: Frames = self._decoder.get_frames_at(numbers).data.numpy()
        return frames


@contextmanager
def translated() -> Iterator[None]:
    """Turns torchcodec's complaints about the file into DecodeError.

    Raises:
        DecodeError: torchcodec complained inside.
    """
    try:
        yield
    # torchcodec reports bad files with these two, depending on where it notices.
    except (RuntimeError, ValueError) as error:
        raise DecodeError(f"torchcodec: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
