"""What is in the files of a list: codec, size, frames, rate, and whether they can be read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from videomae_fast.data.decoders.content import Video
from videomae_fast.data.decoders.folder import FolderReader
from videomae_fast.data.decoders.orientation import orientation
from videomae_fast.data.decoders.pyav import PyAVReader
from videomae_fast.data.files import write_lines
from videomae_fast.data.lists import list_line, load_list
from videomae_fast.data.loader.workers import Outcome, WorkerPool, in_order
from videomae_fast.data.shards import Shard, contiguous
from videomae_fast.errors import UsageError
from videomae_fast.progress import ProgressLine
from videomae_fast.recipes.source import ListFormat

# Times that differ by less belong to a constant rate: containers round them to ticks.
_TICKS: Final = 2
_SHARE: Final = 0.1


@dataclass(frozen=True)
class ProbeJob:
    """A line to look at. ``total`` is -1 for a video, else the images of the folder ``path``."""

    index: int
    path: Video
    start: int
    total: int
    name_pattern: str
    decode: bool


@dataclass(frozen=True)
class Facts:
    """What is in a file that can be read.

    codec, container, pixel_format: FFmpeg's names; width, height: pixels as stored; rotation:
    degrees counter-clockwise that show it upright; mirrored: whether it is shown mirrored as well;
    frames: as training counts them; container_frames: as the header says, None where it says
    nothing; decoded_frames: None unless all were decoded; rate: frames per second on average;
    seconds; variable_rate; longest_gop: frames from a key frame to the next at most; b_frames:
    stored in another order than shown; numbered_by_decoding: why the file does not tell the frames'
    numbers without being decoded, None where it does. None where a file does not say.
    """

    codec: str
    container: str
    pixel_format: str | None
    width: int
    height: int
    rotation: int
    mirrored: bool
    frames: int
    container_frames: int | None
    decoded_frames: int | None
    rate: float | None
    seconds: float | None
    variable_rate: bool | None
    longest_gop: int | None
    b_frames: bool | None
    numbered_by_decoding: str | None


@dataclass
class ProbeSummary:
    """Counts over a list; bad: lines that can't be read, by reason."""

    lines: int = 0
    videos: int = 0
    folders: int = 0
    frames: int = 0
    seconds: float = 0.0
    variable_rate: int = 0
    rotated: int = 0
    numbered_by_decoding: int = 0
    codecs: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    gops: Counter[int] = field(default_factory=Counter)

    def add(self, facts: Facts | None, reason: str) -> None:
        self.lines += 1
        if facts is None:
            self.bad[reason] += 1
            return
        folder = facts.container == "folder"
        self.folders += folder
        self.videos += not folder
        self.frames += facts.frames
        self.seconds += facts.seconds or 0.0
        self.variable_rate += bool(facts.variable_rate)
        self.rotated += bool(facts.rotation) or facts.mirrored
        self.numbered_by_decoding += facts.numbered_by_decoding is not None
        self.codecs[facts.codec] += 1
        self.sizes[f"{facts.width}x{facts.height}"] += 1
        if facts.longest_gop is not None:
            self.gops[facts.longest_gop] += 1


def probe_file(job: ProbeJob) -> Facts:
    """Looks at one file: all packets are read, and the first frame or all of them decoded.

    Raises :class:`~videomae_fast.data.errors.DecodeError` with the reason for a bad file.
    """
    if job.total >= 0:
        return _probe_folder(job)
    with PyAVReader(job.path, scan=True) as video:
        frames = video.decode_all()
        first = next(frames)
        decoded = 1 + sum(1 for _ in frames) if job.decode else None
        context, stream, times = video.stream.codec_context, video.stream, video.times
        rate, variable, seconds = _rate(times, float(stream.time_base or 0))
        if rate is None and stream.average_rate:
            rate = float(stream.average_rate)
            seconds = video.frame_count / rate
        keys = [*video.key_frames, video.frame_count]
        return Facts(
            codec=context.codec.canonical_name,
            container=video.container_format,
            pixel_format=context.pix_fmt,
            width=context.width,
            height=context.height,
            rotation=round(first.rotation / 90) % 4 * 90,
            mirrored=orientation(first).mirrored,
            frames=video.frame_count,
            container_frames=stream.frames or None,
            decoded_frames=decoded,
            rate=None if rate is None else round(rate, 4),
            seconds=None if seconds is None else round(seconds, 3),
            variable_rate=variable,
            longest_gop=int(np.diff(keys).max()) if len(keys) > 1 else None,
            b_frames=video.reordered,
            numbered_by_decoding=video.numbered_by_decoding,
        )


def _probe_folder(job: ProbeJob) -> Facts:
    assert isinstance(job.path, Path)
    with FolderReader(job.path, job.start, job.total, job.name_pattern) as folder:
        ids = range(job.total) if job.decode else sorted({0, job.total - 1})
        for number in ids:
            height, width = folder.read([number]).shape[1:3]
    suffix = Path(job.name_pattern).suffix.removeprefix(".").lower()
    return Facts(
        codec=suffix,
        container="folder",
        pixel_format=None,
        width=width,
        height=height,
        rotation=0,
        mirrored=False,
        frames=job.total,
        container_frames=None,
        decoded_frames=job.total if job.decode else None,
        rate=None,
        seconds=None,
        variable_rate=None,
        longest_gop=None,
        b_frames=None,
        numbered_by_decoding=None,
    )


def _rate(times: list[int] | None, tick: float) -> tuple[float | None, bool | None, float | None]:
    """Average rate, whether it varies, and seconds, from the times in ticks (of seconds each)."""
    if times is None or len(times) < 2 or not tick:
        return None, None, None
    gaps = np.diff(np.asarray(times, dtype=np.int64)).astype(np.float64)
    usual = float(np.median(gaps))
    variable = bool((np.abs(gaps - usual) > max(_TICKS, _SHARE * usual)).any())
    span = (times[-1] - times[0]) * tick
    rate = (len(times) - 1) / span
    return rate, variable, span + 1 / rate


def probe(
    list_path: str | Path,
    output: str | Path,
    *,
    format: ListFormat = "pretrain",
    root: str | Path | None = None,
    name_pattern: str = "img_{:05}.jpg",
    decode: bool = False,
    good_list: str | Path | None = None,
    workers: int = 1,
    time_limit: float = 120.0,
    shard: Shard = (1, 1),
    progress: Callable[[int], ProgressLine] | None = None,
) -> ProbeSummary:
    """Looks at every line of a list, in processes that may crash, and writes a manifest.

    ``output`` gets a JSON object per line of the list, in its order: path, list_path, line,
    readable, reason, and the fields of :class:`Facts` (null where it can't be read). It appears
    when it is complete.

    Args:
        list_path: the list.
        output: the manifest's file.
        format: of the list.
        root: folder that its relative paths start from; None: the working one.
        name_pattern: of the pictures of frame folders.
        decode: decode all frames, not only the first.
        good_list: where to write the list without the lines that can't be read; None: nowhere.
        workers: processes, one file and one thread each.
        time_limit: seconds per file.
        shard: (i, n), the part of the list that is looked at. What all parts write, one after the
            other, is what the whole would.
        progress: from the number of files to a line to keep up.

    Returns:
        What was found, in numbers.

    Raises:
        ListError: the list can't be read.
        UsageError: more shards than lines.
        OutputError: the manifest can't be written.
    """
    entries = load_list(list_path, format)
    lines = contiguous(len(entries), shard)
    if not lines:
        raise UsageError(f"{list_path}: has {len(entries)} lines, too few for {shard[1]} shards")
    jobs = (
        ProbeJob(
            place,
            Path(root or "") / entries[index].path,
            entries[index].start,
            entries[index].total,
            name_pattern,
            decode,
        )
        for place, index in enumerate(lines)
    )
    summary = ProbeSummary()
    line = None if progress is None else progress(len(lines))
    good: list[str] = []

    def written(outcomes: Iterator[Outcome[ProbeJob, Facts]]) -> Iterator[str]:
        for outcome in in_order(outcomes, lambda job: job.index):
            entry, facts = entries[lines[outcome.task.index]], outcome.result
            reason = "" if outcome.problem is None else outcome.problem.reason
            summary.add(facts, reason)
            if facts is not None:
                good.append(list_line(entry, entry.path, format))
            about = {
                "path": str(outcome.task.path),
                "list_path": str(list_path),
                "line": entry.line,
                "readable": facts is not None,
                "reason": reason or None,
            }
            known = dict.fromkeys(Facts.__dataclass_fields__) if facts is None else asdict(facts)
            if line is not None:
                line.update(summary.lines, bad=summary.bad.total())
            yield json.dumps({**about, **known}, ensure_ascii=False) + "\n"

    with WorkerPool(probe_file, workers=min(workers, len(lines)), time_limit=time_limit) as pool:
        write_lines(Path(output), written(pool.run(jobs)))
    if line is not None:
        line.finish(summary.lines, bad=summary.bad.total())
    if good_list is not None:
        write_lines(Path(good_list), good)
    return summary
