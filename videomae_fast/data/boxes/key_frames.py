"""Which frames of a video make the clip around a key frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def key_frame_ids(key: int, frames: int, stride: int, duration: int) -> NDArray[np.int64]:
    """Frame numbers int64 [frames], of all of which the key frame is the middle.

    With an even stride the key frame itself lies between two of them: -31, ..., -3, 1, ..., 29
    from it for 16 frames at stride 4. Where the video begins or ends within the window, its first
    or last frame is repeated.

    Args:
        key: number of the key frame, from 0.
        frames, stride: of the clip.
        duration: frames of the video.

    Raises:
        ValueError: a number below 1, or a key frame outside of the video.

    Source: ``temporal_crop`` of the official AVA code, there for the files of one second each that
    lie around the key frame; in the whole video here.
    """
    for name, value in (("frames", frames), ("stride", stride), ("duration", duration)):
        if value < 1:
            raise ValueError(f"{name} ({value}) must be at least 1")
    if not 0 <= key < duration:
        raise ValueError(f"key frame {key} lies outside of the video: 0..{duration - 1}")
    start = key - frames * stride // 2 + (stride - 1) // 2
    ids = start + np.arange(frames, dtype=np.int64) * stride
    return ids.clip(0, duration - 1)
