"""The videos that reading is timed with: as they are, prepared by the library, and cached."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from videomae_fast.data.cache import CachedVideos, fill_cache
from videomae_fast.data.decoders.pyav import PyAVReader
from videomae_fast.data.errors import DecodeError
from videomae_fast.data.lists import load_list
from videomae_fast.data.loader.workers import WorkerPool
from videomae_fast.data.order import Draw, item_words
from videomae_fast.data.prepare import prepare
from videomae_fast.data.reading import ClipRequest
from videomae_fast.data.views.rule import WORDS_PER_SAMPLE
from videomae_fast.demo.scenes import frames as scene_frames
from videomae_fast.demo.videos import find_videos, write_list
from videomae_fast.errors import VideoMAEFastError

REAL = Path(__file__).parents[3] / "shared" / "videos"
WIDTH, HEIGHT, FPS = 340, 256, 24
RAW, PREPARED, CACHED = "raw", "prepared", "cached"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Rendering:
    """A video to render: ``number`` picks the scene; ``frames`` of ``width`` x ``height``."""

    path: Path
    number: int
    frames: int
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True)
class Material:
    """The same videos in each form, in the same order.

    Attributes:
        source: where they come from.
        forms: files by form: "raw", "prepared", and "cached", which are the prepared ones, all of
            them in ``cache``.
        lists: a list of each form's files.
        left_out: videos that can't be compared, and why.
    """

    source: str
    forms: dict[str, list[Path]]
    lists: dict[str, Path]
    left_out: dict[str, str]
    cache: CachedVideos | None = None

    def requests(
        self, form: str, positions: Sequence[int], samples: int, stride: int
    ) -> list[ClipRequest]:
        """One request per position, the videos in turn; the words depend on the position alone."""
        files = self.forms[form]
        words = [tuple(item_words(0, 0, p, 1 + samples * WORDS_PER_SAMPLE)) for p in positions]
        return [
            ClipRequest(
                draw=Draw(0, 0, position, 0, position % len(files)),
                file=files[position % len(files)],
                list_path=self.lists[form],
                line=1 + position % len(files),
                label=-1,
                start=0,
                total=-1,
                name_pattern="",
                stride=stride,
                words=random,
            )
            for position, random in zip(positions, words, strict=True)
        ]

    def record(self) -> dict[str, Any]:
        """What a record says of the videos."""
        return {"source": self.source, "videos": self.described(), "left_out": self.left_out}

    def described(self) -> list[dict[str, Any]]:
        """For the record: name, and codec, size in pixels and bytes, frames, GOP of each form."""
        told = []
        for number, path in enumerate(self.forms["raw"]):
            forms = {
                form: _described(files[number])
                for form, files in self.forms.items()
                if form != CACHED
            }
            told.append({"name": path.name, **forms})
        return told


def render(job: Rendering) -> Path:
    """Renders a video as a camera or a site would store it: H.264, x264's defaults, long GOP."""
    import av

    side = max(job.width, job.height)
    top = (side - job.height) // 2
    left = (side - job.width) // 2
    with av.open(str(job.path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS))
        stream.width, stream.height, stream.pix_fmt = job.width, job.height, "yuv420p"
        stream.thread_count = 1
        for picture in scene_frames(0, job.number, size=side, count=job.frames, fps=FPS):
            part = picture[top : top + job.height, left : left + job.width].copy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(part, format="rgb24")))
        container.mux(stream.encode())
    return job.path


def material(
    work: Path,
    *,
    videos: Path | None,
    count: int,
    seconds: float,
    span: int,
    side: int,
    cache_bytes: int,
    tell: Say = print,
) -> Material:
    """Finds or renders videos, prepares and caches them in the folder ``work``.

    Taken are those that both sides can read and crop alike.

    Args:
        work: the folder.
        videos: folder of one's own; None takes the real clips beside the repository, or renders.
        count: videos at most.
        seconds: length of a rendered one.
        span: frames that a clip spans, which a video must have.
        side: of the crop, in pixels.
        cache_bytes: for all of them decoded.
        tell: takes a line of progress.

    Raises:
        VideoMAEFastError: none is left, or the cache has no room for them.
    """
    left_out: dict[str, str] = {}
    folder = videos or (REAL if REAL.is_dir() else None)
    if folder is None:
        source = "rendered"
        jobs = [Rendering(work / f"{i}.mp4", i, round(seconds * FPS)) for i in range(count)]
        work.mkdir(parents=True, exist_ok=True)
        tell(f"rendering {count} videos of {seconds:g} s")
        with WorkerPool(render, workers=os.cpu_count() or 1, time_limit=None) as pool:
            for done in pool.run(jobs):
                if done.result is None:
                    raise VideoMAEFastError(f"can't render {done.task.path}: {done.problem}")
        found = [job.path for job in jobs]
    else:
        source, found = "own" if videos else "real", find_videos(folder)
    raw: list[Path] = []
    for path in found:
        why = _why_not(path, span, side)
        if why is None and len(raw) == count:
            why = f"{count} others are enough"
        if why is None:
            raw.append(path)
        else:
            left_out[path.name] = why
    if not raw:
        raise VideoMAEFastError(f"no video to time with in {folder}: {left_out}")
    listed = work / "raw" / "train.csv"
    write_list(listed, raw)
    tell(f"preparing {len(raw)} videos")
    made = prepare(listed, work / "prepared", workers=os.cpu_count() or 1, speed_files=0)
    if made.bad:
        raise VideoMAEFastError(f"not all videos could be prepared: see {made.bad_files}")
    entries = load_list(made.list)
    prepared = [Path(entries[number].path) for number in range(len(entries))]
    tell(f"caching {len(raw)} videos")
    filled = fill_cache(made.list, work / "cache", cache_bytes)
    if filled.added < len(raw):
        raise VideoMAEFastError(
            f"the cache takes {filled.added} of {len(raw)} videos in {cache_bytes / 1e9:g} GB: "
            "take fewer or shorter videos, or a larger cache"
        )
    return Material(
        source,
        {RAW: raw, PREPARED: prepared, CACHED: prepared},
        {RAW: listed, PREPARED: made.list, CACHED: made.list},
        left_out,
        CachedVideos(work / "cache", cache_bytes, fill=False),
    )


def add_material(parser: argparse.ArgumentParser) -> None:
    """Adds the options of :func:`material_of`, but for those whose defaults differ."""
    add = parser.add_argument
    add("--videos", type=Path, help="folder of your own; default: real clips, else rendered ones")
    add("--count", type=int, default=4, help="videos at most; default: 4")
    add("--length", type=float, default=10.0, help="seconds of a rendered video; default: 10")
    add("--frames", type=int, default=16, help="default: 16")
    add("--stride", type=int, default=4, help="default: 4")


def material_of(args: argparse.Namespace, work: Path) -> Material:
    """:func:`material` by what the command line says."""
    return material(
        work,
        videos=args.videos,
        count=args.count,
        seconds=args.length,
        span=args.frames * args.stride,
        side=args.size,
        cache_bytes=round(args.cache_gb * 1e9),
    )


def settings_of(args: argparse.Namespace, clips: int) -> dict[str, Any]:
    """What a record says of the clips that are read."""
    read = {key: getattr(args, key) for key in ("frames", "stride", "size", "samples")}
    return {**read, "clips": clips, "rounds": args.rounds}


def _why_not(path: Path, span: int, side: int) -> str | None:
    """Why a video can't be read by both sides alike, or None."""
    import decord

    try:
        with PyAVReader(path) as video:
            count, context = video.frame_count, video.stream.codec_context
            short = min(context.width, context.height)
            pixels = context.pix_fmt or "unknown"
    except DecodeError as error:
        return error.reason
    if count < span:
        return f"{count} frames, a clip spans {span}"
    if pixels not in ("yuv420p", "yuvj420p"):
        return f"{pixels}: decoders reduce it to 8 bits differently"
    if side - 3 < short < side:
        return f"short side {short}: the official crop leaves the picture"
    try:
        theirs = len(decord.VideoReader(str(path), num_threads=1, ctx=decord.cpu(0)))
    except (decord.DECORDError, RuntimeError):
        return "decord can't open it"
    return None if theirs == count else f"decord counts {theirs} frames, not {count}"


def _described(path: Path) -> dict[str, Any]:
    with PyAVReader(path) as video:
        context, keys = video.stream.codec_context, max(1, len(video.key_frames))
        return {
            "codec": context.codec.canonical_name,
            "width": context.width,
            "height": context.height,
            "frames": video.frame_count,
            "frames_per_key_frame": round(video.frame_count / keys, 1),
            "bytes": path.stat().st_size,
        }
