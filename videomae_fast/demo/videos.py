"""Renders the demo's videos to H.264 files, and finds videos in a user's folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.errors import ListError
from videomae_fast.data.files import write_lines
from videomae_fast.data.lists import Entry, list_line
from videomae_fast.data.lists.video_files import find_video_files
from videomae_fast.demo.motions import MOTIONS, motion_frames
from videomae_fast.demo.scenes import SCENES, frames
from videomae_fast.errors import VideoMAEFastError
from videomae_fast.recipes.source import ListFormat


class DemoError(VideoMAEFastError):
    """The demo can't be set up, or did not show what it is there to show."""


def write_h264(path: Path, pictures: Iterable[NDArray[np.uint8]], *, fps: int) -> None:
    """Encodes uint8 [H, W, 3] pictures (even sides) with libx264: 4:2:0, a key frame every 12.

    Written under another name first, so that a file under this name is always complete.

    Raises:
        DemoError: this build of PyAV has no libx264.
    """
    if "libx264" not in av.codecs_available:
        raise DemoError(
            "this build of PyAV has no libx264 encoder: install the wheel (pip install av), "
            "or give the demo a folder of your own videos (--videos FOLDER)"
        )
    part = path.with_name(path.name + ".part")
    with av.open(str(part), "w", format="mp4") as container:
        stream = None
        for picture in pictures:
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(fps))
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.gop_size = 12
                stream.thread_count = 1  # the bytes do not depend on the machine's cores
                stream.options = {"crf": "10", "preset": "veryfast"}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        if stream is None:
            raise ValueError(f"{path}: no pictures to encode")
        container.mux(stream.encode())
    part.replace(path)


def render_videos(
    folder: Path,
    count: int,
    *,
    seed: int = 0,
    size: int = 128,
    seconds: float = 2.0,
    fps: int = 24,
    log: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Renders `count` videos, all kinds of scenes in turn; files that exist are kept.

    Returns:
        Their paths in order. The content of a file depends on (seed, its index, size, fps) alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(count):
        name = SCENES[index % len(SCENES)].__name__
        path = folder / f"{index:03}_{name}_seed{seed}_{size}px.mp4"
        paths.append(path)
        if not path.exists():
            total = round(seconds * fps)
            write_h264(path, frames(seed, index, size=size, count=total, fps=fps), fps=fps)
            log(f"rendered {path}")
    return paths


def render_motions(
    folder: Path, indices: range, *, seed: int, size: int, seconds: float, fps: int
) -> list[Path]:
    """Renders motions by index, all classes in turn; files that exist are kept.

    Returns:
        Their paths in order. The content of a file depends on (seed, its index, size, fps) alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths, total = [], round(seconds * fps)
    for index in indices:
        name = MOTIONS[index % len(MOTIONS)]
        path = folder / f"{index:05}_{name}_seed{seed}_{size}px.mp4"
        paths.append(path)
        if not path.exists():
            write_h264(path, motion_frames(seed, index, size=size, count=total, fps=fps), fps=fps)
    return paths


def find_videos(folder: Path) -> list[Path]:
    """The video files of a folder and of the folders in it, by extension, sorted.

    Raises:
        DemoError: no such folder, or no video in it.
    """
    try:
        return [folder / video for video in find_video_files(folder).videos]
    except ListError as error:
        raise DemoError(str(error)) from error


def write_list(path: Path, videos: Sequence[Path], labels: Sequence[int] | None = None) -> None:
    """Writes a list in the official format: a line per video, ``path 0 -1``, or ``path label``.

    Args:
        path: of the list.
        videos: in order.
        labels: of each; None writes a list for pre-training.

    Raises:
        DemoError: a path has a line break in it, which the format can't say.
    """
    told: ListFormat = "pretrain" if labels is None else "labels"
    try:
        lines = [
            list_line(Entry("", 0, -1, label, 0), str(video.resolve()), told)
            for video, label in zip(videos, labels or [-1] * len(videos), strict=True)
        ]
    except ListError as error:
        raise DemoError(str(error)) from error
    write_lines(path, lines)
