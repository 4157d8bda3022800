"""Which frames of a video make a clip: the official rule, padding included."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def possible_starts(duration: int, frames: int, stride: int) -> int:
    """How many first frames a clip can have: 0 to this number - 1, equally likely.

    The clip is taken to span ``frames * stride`` frames (not ``(frames - 1) * stride + 1``), as the
    official rule has it; a shorter video has the one start 0.

    Args:
        duration: frames of the video.
        frames: of the clip.
        stride: frames from one sampled frame to the next.

    Returns:
        The number, at least 1.

    Raises:
        ValueError: a video without frames, or settings below 1.
    """
    _check(duration, frames, stride)
    return max(1, duration - frames * stride + 1)


def frame_ids(duration: int, start: int, frames: int, stride: int) -> NDArray[np.int64]:
    """Frame numbers of the clip that begins at a frame, counted from 0.

    Steps by ``stride`` as long as the next frame **and the one after it** exist, then repeats the
    frame it has reached: of 16 frames at stride 4, ids 0, 4, 8, 12, 12, ... (the official rule
    compares 1-based, so the last frame of a short video may stay unused).

    Args:
        duration: frames of the video.
        start: the first frame's number.
        frames: of the clip.
        stride: frames from one sampled frame to the next.

    Returns:
        int64 [frames].

    Raises:
        ValueError: a start outside the video, or settings below 1.

    Source: VideoMAE V2, ``HybridVideoMAE.get_frame_id_list``.
    """
    _check(duration, frames, stride)
    if not 0 <= start < duration:
        raise ValueError(f"start {start} lies outside a video of {duration} frames")
    # 1-based position p moves on while p + stride < duration, so p never passes duration - 1.
    steps = max(0, -(-(duration - 1 - start - stride) // stride))
    return start + stride * np.minimum(np.arange(frames, dtype=np.int64), steps)


def _check(duration: int, frames: int, stride: int) -> None:
    if duration < 1:
        raise ValueError("a video without frames has no clip")
    if frames < 1 or stride < 1:
        raise ValueError(f"frames ({frames}) and stride ({stride}) must be at least 1")
