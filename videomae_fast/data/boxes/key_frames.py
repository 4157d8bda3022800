"""Which frames of a video make the clip around a key frame."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.decoders import VideoReader
from videomae_fast.data.decoders.in_order import frames_per_second
from videomae_fast.data.decoders.pyav import PyAVReader
from videomae_fast.data.errors import DecodeError


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


def frame_at(video: VideoReader, file: Path, seconds: float, fps: float | None) -> int:
    """Number of the frame that is nearest to a time.

    Args:
        video: open, of any decoder.
        file: of the video.
        seconds: from the first frame on.
        fps: frames per second; None: by the frames' times, else as the file states it.

    Raises:
        DecodeError: the video has no such time, or nobody says its rate.
    """
    duration = video.frame_count
    times = video.times if fps is None and isinstance(video, PyAVReader) else None
    if times is not None and isinstance(video, PyAVReader) and video.stream.time_base:
        wanted = times[0] + seconds / float(video.stream.time_base)
        after = int(np.searchsorted(times, wanted))
        if after == 0:
            return 0
        if after < duration:
            return after - (times[after] - wanted > wanted - times[after - 1])
        length = (times[-1] - times[0]) / max(1, duration - 1)
        if wanted <= times[-1] + length:
            return duration - 1
        end = (times[-1] - times[0] + length) * float(video.stream.time_base)
        raise DecodeError(f"ends at {end:.2f} s, before its key frame at {seconds:g} s")
    rate = fps or frames_per_second(video, file)
    if rate is None:
        raise DecodeError("does not say its frame rate: give it with fps=N")
    key = math.floor(seconds * rate + 0.5)
    if not 0 <= key <= duration:
        raise DecodeError(
            f"its key frame at {seconds:g} s is frame {key} at {rate:g} a second, of {duration}"
        )
    return min(key, duration - 1)
