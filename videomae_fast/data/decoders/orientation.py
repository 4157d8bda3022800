"""How stored pictures are to be turned and mirrored to be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, cast

import numpy as np

from videomae_fast.data.decoders.base import Frames

if TYPE_CHECKING:
    from av import VideoFrame


class Orientation(NamedTuple):
    """What makes a stored picture upright: its sides exchanged, then mirrored.

    Attributes:
        transposed: rows become columns.
        flipped_x: then left and right change places.
        flipped_y: then top and bottom change places.
    """

    transposed: bool = False
    flipped_x: bool = False
    flipped_y: bool = False

    @property
    def mirrored(self) -> bool:
        """Whether it takes more than turning."""
        return (self.transposed + self.flipped_x + self.flipped_y) % 2 == 1

    def apply(self, frame: Frames) -> Frames:
        """A frame upright.

        Args:
            frame: uint8 [H, W, 3] as stored.

        Returns:
            A view of it: [H, W, 3], or [W, H, 3] where it is transposed.
        """
        if self == UPRIGHT:
            return frame
        if self.transposed:
            frame = frame.transpose(1, 0, 2)
        return frame[:: -1 if self.flipped_y else 1, :: -1 if self.flipped_x else 1]


UPRIGHT: Final = Orientation()


def orientation(frame: VideoFrame) -> Orientation:
    """What a frame's display matrix says; angles are rounded to the nearest right angle.

    Args:
        frame: as FFmpeg gives it.

    Returns:
        What makes it upright.
    """
    from av.sidedata.sidedata import SideDataContainer

    # Not frame.side_data, which the frame keeps: with it, its picture would stay in memory until
    # the collector of cycles comes by
    stored = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]
    if stored is None:
        return UPRIGHT
    matrix = np.frombuffer(cast(memoryview, stored), dtype="=i4", count=9)
    # A point (x, y) is shown at (a x + c y, b x + d y).
    a, b, c, d = (int(matrix[place]) for place in (0, 1, 3, 4))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)
