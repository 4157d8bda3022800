"""What a decoder is: a file in, numbered uint8 frames out."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.errors import DecodeError

Frames = NDArray[np.uint8]

MAX_PIXELS: Final = 36_000_000
"""Of a frame; 8K has 35.4 million. What claims more is refused before memory is taken for it."""


class VideoReader(Protocol):
    """An open video. Frames are numbered from 0 in the order in which they are shown.

    The order alone counts: at a variable frame rate, too, frame ``i`` is the ``i``-th that comes
    out when the file is decoded from its start. Frames that an edit list hides are not counted, nor
    those at the start or the end that can't be decoded. Rotation and mirroring by metadata are
    applied, so frames are upright; pixel aspect ratios are not, so frames keep their stored
    resolution. More than 8 bits per channel are reduced to 8.
    """

    @property
    def frame_count(self) -> int:
        """Number of frames, at least 1."""
        ...

    @property
    def numbered_by_decoding(self) -> str | None:
        """Why frames had to be decoded to number them, or None where times did."""
        ...

    def read(self, ids: Sequence[int]) -> Frames:
        """Frames by number.

        Args:
            ids: numbers from 0 on, in any order, repeated as wanted.

        Returns:
            uint8 [len(ids), H, W, 3], RGB.

        Raises:
            DecodeError: a frame can't be decoded.
            IndexError: no number, or one outside the video.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class ReaderBase:
    """``with`` support, and what most readers share."""

    @property
    def numbered_by_decoding(self) -> str | None:
        """See :class:`VideoReader`."""
        return None

    def close(self) -> None:
        """Lets go of the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_ids(ids: Sequence[int], frame_count: int) -> list[int]:
    """The ids as a list of int.

    Args:
        ids: frame numbers.
        frame_count: of the video.

    Returns:
        The same numbers.

    Raises:
        IndexError: a number outside the video, or none at all.
    """
    numbers = [int(number) for number in ids]
    if not numbers:
        raise IndexError("no frame asked for")
    if min(numbers) < 0 or max(numbers) >= frame_count:
        raise IndexError(f"frames {min(numbers)}..{max(numbers)} of a video of {frame_count}")
    return numbers


def check_size(width: int, height: int) -> None:
    """Refuses frames that are too large.

    Args:
        width, height: in pixels.

    Raises:
        DecodeError: there are more than ``MAX_PIXELS``.
    """
    if width * height > MAX_PIXELS:
        raise DecodeError(too_large(width, height))


def too_large(width: int, height: int) -> str:
    """Why frames of this size are refused."""
    return f"has {width} x {height} pixels, and more than {MAX_PIXELS:,} per frame are not read"
