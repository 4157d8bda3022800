"""Which frames of a labelled video make a clip: training, validation and each view of a test.

Two rules, as in the official code. *Dense* clips (Kinetics, UCF101, HMDB51) hold neighbours:
a training clip spreads over ``frames * stride`` frames with both ends, so that its gaps are not all
``stride``; a test clip has the exact stride. *Sparse* clips (Something-Something) take one frame of
each of ``frames`` equal segments of the whole video. All frame numbers count from 0.

Source: ``VideoClsDataset``, ``RawFrameClsDataset`` in dataset/datasets.py of the official V2 code.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


def dense_draws(duration: int, frames: int, stride: int) -> int:
    """How many dense training clips a video has, all equally likely.

    As officially, the clip that would begin at the last possible frame is never drawn.

    Args:
        duration: frames of the video.
        frames, stride: of the clip.

    Raises:
        ValueError: a number below 1.
    """
    _check(duration=duration, frames=frames, stride=stride)
    return max(1, duration - frames * stride)


def dense_ids(duration: int, frames: int, stride: int, draw: int | None = None) -> Ids:
    """Frame numbers int64 [frames] of a dense training or validation clip.

    Args:
        duration: frames of the video.
        frames, stride: of the clip; it spans ``frames * stride`` frames. A shorter video is spread
            over ``duration // stride`` places, and its last frame fills the others.
        draw: which training clip, 0 to ``dense_draws() - 1``; None takes validation's, the middle.

    Raises:
        ValueError: a number below 1, or a draw outside its range.
    """
    draws, span = dense_draws(duration, frames, stride), frames * stride
    if draw is not None and not 0 <= draw < draws:
        raise ValueError(f"draw {draw} lies outside 0..{draws - 1}")
    if duration > span:
        end = (span + duration) // 2 if draw is None else span + draw
        start = end - span
        places = np.linspace(start, end, frames)
        return np.clip(places, start, end - 1).astype(np.int64)
    moving = duration // stride
    places = np.concatenate(
        [np.linspace(0, duration, moving), np.full(frames - moving, duration, dtype=float)]
    )
    return np.clip(places, 0, duration - 1).astype(np.int64)


def dense_test_ids(duration: int, frames: int, stride: int, segments: int) -> Ids:
    """Frame numbers int64 [segments, frames] of a test's dense clips, from first to last.

    Args:
        duration: frames of the video.
        frames, stride: of a clip; a shorter video repeats the last frame that the stride meets.
        segments: clips, spread evenly over the video; one takes the middle (where the official
            code divides by zero).

    Raises:
        ValueError: a number below 1.
    """
    _check(duration=duration, frames=frames, stride=stride, segments=segments)
    strided = np.arange(0, duration, stride, dtype=np.int64)
    if len(strided) < frames:
        strided = np.pad(strided, (0, frames - len(strided)), mode="edge")
    room = len(strided) - frames
    if segments == 1:
        starts = [room // 2]
    else:
        starts = [int(k * (room / (segments - 1))) for k in range(segments)]
    return np.stack([strided[start : start + frames] for start in starts])


def sparse_draws(duration: int, frames: int) -> int:
    """How many places a frame of a sparse training clip is drawn from, independently for each.

    Raises:
        ValueError: a number below 1.
    """
    _check(duration=duration, frames=frames)
    return max(1, duration // frames)


def sparse_ids(duration: int, frames: int, draws: Sequence[int] | None = None) -> Ids:
    """Frame numbers int64 [frames] of a sparse training or validation clip.

    Each of the `frames` segments has ``duration // frames`` frames, so the video's last
    ``duration % frames`` frames are not seen. A video of fewer frames than the clip repeats its
    first one, as officially for folders; the official code has another rule for video files,
    which never takes a segment's last frame and gives short videos the frame -1: not followed.

    Args:
        duration: frames of the video.
        frames: of the clip.
        draws: a place in each segment, 0 to ``sparse_draws() - 1``; None takes validation's, the
            middle.

    Raises:
        ValueError: a number below 1, or draws of another count or outside their range.
    """
    places = sparse_draws(duration, frames)
    if draws is None:
        draws = [places // 2] * frames
    elif len(draws) != frames or not all(0 <= draw < places for draw in draws):
        raise ValueError(
            f"{len(draws)} draws {list(draws)}: {frames} in 0..{places - 1} are wanted"
        )
    if duration < frames:
        return np.maximum(np.arange(frames, dtype=np.int64) - (frames - duration), 0)
    return np.arange(frames, dtype=np.int64) * places + np.asarray(draws, dtype=np.int64)


def sparse_test_ids(duration: int, frames: int, segments: int) -> Ids:
    """Frame numbers int64 [segments, frames] of a test's sparse clips.

    Clip k is shifted by ``k / segments`` of a frame's segment. Where ``duration < frames *
    segments`` the numbers of neighbouring clips overlap, and the clips are dealt out of their
    sorted union, as officially.

    Args:
        duration: frames of the video.
        frames: of a clip.
        segments: clips.

    Raises:
        ValueError: a number below 1.
    """
    _check(duration=duration, frames=frames, segments=segments)
    tick = duration / frames
    ids = sorted(
        int(segment * tick / segments + tick * i)
        for segment in range(segments)
        for i in range(frames)
    )
    return np.asarray(ids, dtype=np.int64).reshape(frames, segments).T.copy()


def _check(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} ({value}) must be at least 1")
