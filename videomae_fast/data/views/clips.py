"""One clip from one file, outside of training: for reconstructions and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from videomae_fast.data.decoders import Frames, open_video
from videomae_fast.data.errors import DecodeError
from videomae_fast.data.views.crops import Size, centre_box, crop_resize
from videomae_fast.data.views.sampling import frame_ids, possible_starts


def as_size(image_size: int | Sequence[int]) -> Size:
    """A size as (height, width), in pixels.

    Args:
        image_size: a side, or height and width.

    Returns:
        (height, width).

    Raises:
        ValueError: another number of sides, or one below a pixel.
    """
    if isinstance(image_size, int):
        size = (image_size, image_size)
    elif len(image_size) == 2:
        size = (int(image_size[0]), int(image_size[1]))
    else:
        raise ValueError(f"image_size {image_size!r} must be a side or (height, width)")
    if min(size) < 1:
        raise ValueError(f"image_size {size} must be at least one pixel")
    return size


def read_clip(
    path: str | Path,
    *,
    frames: int = 16,
    stride: int = 4,
    start: int | None = 0,
    image_size: int | tuple[int, int] = 224,
    decoder: str = "pyav",
) -> Frames:
    """A clip of a video, centre-cropped to the aspect of a size and resized.

    Frame numbers follow the official rule, which repeats frames of a short video.

    Args:
        path: of the video file.
        frames: of the clip.
        stride: frames from one sampled frame to the next.
        start: number of the first frame; None takes the middle of the video.
        image_size: side, or (height, width), of the clip in pixels.
        decoder: a name in ``DECODERS``.

    Returns:
        uint8 [frames, height, width, 3].

    Raises:
        DecodeError: names a file that can't be read.
        ValueError: a start outside the video, or no such decoder.
        BackendUnavailableError: the decoder can't be used here.
    """
    size = as_size(image_size)
    try:
        with open_video(path, decoder) as video:
            duration = video.frame_count
            first = (possible_starts(duration, frames, stride) - 1) // 2 if start is None else start
            clip = video.read(frame_ids(duration, first, frames, stride).tolist())
    except DecodeError as error:
        raise DecodeError(f"{path}: {error.reason}") from error
    return crop_resize(clip, centre_box(clip.shape[2], clip.shape[1], size), size)
