"""Features of many videos into a folder: resumable, in shards, with a report of what failed."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Final

import torch

from videomae_fast.data.decoders import FolderReader, VideoReader, find_decoder
from videomae_fast.data.decoders.in_order import frames_per_second
from videomae_fast.data.errors import DecodeError, one_file
from videomae_fast.data.files import AppendFile, write_lines
from videomae_fast.data.lock import FolderLock
from videomae_fast.data.prepare.names import Names
from videomae_fast.errors import UsageError
from videomae_fast.evaluation.features import FeatureSettings, clip_features
from videomae_fast.evaluation.stored import MADE_FROM, state_of, write_features
from videomae_fast.models.frozen import FrozenFeatures
from videomae_fast.progress import ProgressLine

_SHOWN: Final = 3


@dataclass(frozen=True)
class Clip:
    """A video to take features of.

    Attributes:
        path: of the file or the frame folder.
        start, total: a frame folder's first number and count; total -1 for a file.
        line: of the list; 0 without one.
    """

    path: Path
    start: int = 0
    total: int = -1
    line: int = 0


@dataclass(frozen=True)
class Extraction:
    """How features of videos are made.

    Attributes:
        model: on the device.
        settings: windows and pixels.
        about: what else decides the values (the weights' digest among it), for the JSON.
        notes: what does not decide them (versions, where the weights are), for the JSON.
        device: of the model.
        batch: windows per forward pass; None: as the device has it.
        bf16: compute in bf16.
        decoder: of video files.
        name_pattern: of the images in a frame folder.
        fps: frames per second, where the files don't say them right; None: theirs.
    """

    model: FrozenFeatures
    settings: FeatureSettings
    about: Mapping[str, Any]
    notes: Mapping[str, Any] = field(default_factory=dict)
    device: torch.device | str = "cpu"
    batch: int | None = None
    bf16: bool = False
    decoder: str = "pyav"
    name_pattern: str = "img_{:05}.jpg"
    fps: float | None = None

    def made_from(self, clip: Clip) -> dict[str, Any]:
        """All that decides the values of a video's features, as plain values."""
        rule, model, settings = self.settings.windows, self.model, self.settings
        source: dict[str, Any] = {"path": str(clip.path)}
        if clip.total >= 0:
            source |= {"first": clip.start, "images": clip.total, "pattern": self.name_pattern}
        elif clip.path.is_file():
            source["bytes"] = clip.path.stat().st_size
        return {
            "video": source,
            "windows": {
                "stride": rule.stride,
                "length": rule.length,
                "frame_stride": rule.frame_stride,
                "span": rule.span,
                "short": rule.short,
            },
            "pixels": {
                "size": list(settings.size),
                "fit": settings.fit,
                "mean": list(settings.pixels.mean),
                "std": list(settings.pixels.std),
            },
            "features": {
                "pooling": model.pooling,
                "layer": model.layer or model.depth,
                "layers": model.depth,
                "norm": model.norm_applied,
            },
            "precision": "bf16" if self.bf16 else "fp32",
            "decoder": self.decoder,
            "fps_given": self.fps,
            **self.about,
        }


@dataclass
class Outcome:
    """What became of a folder's videos.

    Attributes:
        made, skipped, padded: videos; skipped ones were there, padded ones are among those made.
        windows: of the videos that were made.
        failed: their paths with the reason.
        report: the file that names them; None without any.
    """

    made: int = 0
    skipped: int = 0
    padded: int = 0
    windows: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)
    report: Path | None = None


def array_names(clips: Sequence[Clip]) -> list[str]:
    """The file of each video: its own name with ``.npy``, as consumers look for it.

    Where two videos have one name, also but for case, the later of them in the list gets ``~2``
    before the ending, and so on.

    Args:
        clips: all of a list, so that every shard gives the same names.

    Returns:
        Names, in their order.
    """
    names = Names(suffix=".npy")
    return [names.name((c.path.name if c.total >= 0 else c.path.stem) or "folder") for c in clips]


def shard_of(count: int, shard: tuple[int, int]) -> range:
    """Which videos are a shard's.

    Args:
        count: of all videos.
        shard: (i, n), i from 1 to n.

    Returns:
        Every n-th from the i-th.
    """
    return range(shard[0] - 1, count, shard[1])


def failures_of(folder: Path, shard: tuple[int, int]) -> Path:
    """The file that names what failed of a shard."""
    name = "" if shard == (1, 1) else f".{shard[0]}-of-{shard[1]}"
    return folder / f"failures{name}.jsonl"


def join_shards(clips: Sequence[Clip], folder: Path, outcomes: Sequence[Outcome]) -> Outcome:
    """What became of a list whose shards are all made; their failures go into one file.

    Args:
        clips: all of the list.
        folder: that the shards were made in.
        outcomes: of all shards, in order.

    Returns:
        The whole's, as one :func:`extract` would have given it.

    Raises:
        OutputError: the file can't be written.
    """
    count, whole = len(outcomes), Outcome()
    for one in outcomes:
        whole.made, whole.skipped = whole.made + one.made, whole.skipped + one.skipped
        whole.padded, whole.windows = whole.padded + one.padded, whole.windows + one.windows
    files = [failures_of(folder, (part, count)) for part in range(1, count + 1)]
    told = [iter(file.read_text().splitlines(True) if file.exists() else []) for file in files]
    failed = [iter(one.failed) for one in outcomes]
    left = [next(one, None) for one in failed]
    lines = []
    for index, clip in enumerate(clips):
        part = index % count  # as `shard_of` deals them
        first = left[part]
        if first is not None and first[0] == clip.path:
            whole.failed.append(first)
            lines.append(next(told[part]))
            left[part] = next(failed[part], None)
    report = failures_of(folder, (1, 1))
    if lines:
        write_lines(report, lines)
        whole.report = report
    else:
        report.unlink(missing_ok=True)
    for file in files:
        if file != report:
            file.unlink(missing_ok=True)
    return whole


def extract(
    clips: Sequence[Clip],
    folder: Path,
    how: Extraction,
    *,
    shard: tuple[int, int] = (1, 1),
    overwrite: bool = False,
    show_progress: bool = True,
) -> Outcome:
    """Makes the features of videos that are not there yet.

    A video that can't be read is named in ``failures.jsonl`` (of a shard
    ``failures.2-of-4.jsonl``), and the next one is taken.

    Args:
        clips: all of a list.
        folder: for the files.
        how: to make them.
        shard: (i, n): which part of the list is made here.
        overwrite: replace features that were made from something else.
        show_progress: a line on standard error, with videos and windows per second and time left.

    Returns:
        What became of them.

    Raises:
        UsageError: features of something else are there, and are not to be replaced; or another
            process makes the same shard.
        OutputError: a file can't be written.
        BackendUnavailableError: the decoder can't be used here.
    """
    find_decoder(how.decoder)
    names, mine, outcome = array_names(clips), shard_of(len(clips), shard), Outcome()
    todo = []
    for index in mine:
        state = state_of(folder / names[index], how.made_from(clips[index]))
        if state == "other" and not overwrite:
            raise UsageError(
                f"{folder / names[index]}: is there, and was not made from {clips[index].path} "
                "with these weights and settings; give another folder, or --overwrite"
            )
        if state == "whole":
            outcome.skipped += 1
        else:
            todo.append(index)
    report = failures_of(folder, shard)
    claim = folder / report.stem.replace("failures", ".working")
    with FolderLock(claim, "takes features"):
        report.unlink(missing_ok=True)
        progress = _Progress(len(todo), outcome, show=show_progress)
        for done, index in enumerate(todo):
            clip, before = clips[index], outcome.windows
            try:
                with closing(_make(clip, folder / names[index], how, outcome)) as parts:
                    for count, windows in parts:
                        outcome.windows += count
                        progress.update(done, windows)
            except DecodeError as error:
                outcome.windows = before
                outcome.failed.append((clip.path, error.reason))
                outcome.report = report
                _tell(report, clip, error)
            progress.update(done + 1)
        progress.finish()
    with suppress(OSError):  # taken by another process meanwhile
        claim.rmdir()
    return outcome


class _Progress:
    """Counts videos, or where there is one alone, which may be long, its windows."""

    def __init__(self, videos: int, outcome: Outcome, *, show: bool) -> None:
        self._videos, self._outcome, self._show = videos, outcome, show
        self._line = ProgressLine(videos, "videos") if show and videos > 1 else None

    def update(self, done: int, windows: int = 0) -> None:
        """done: videos; windows: in the one that is being made."""
        if self._line is None and self._show and self._videos == 1 and windows:
            self._line = ProgressLine(windows, "windows")
        if self._line is not None:
            self._line.update(self._place(done), **self._counts())

    def finish(self) -> None:
        if self._line is not None:
            self._line.finish(self._place(self._videos), **self._counts())

    def _place(self, videos: int) -> int:
        return self._outcome.windows if self._videos == 1 else videos

    def _counts(self) -> dict[str, int]:
        failed = {"failed": len(self._outcome.failed)}
        return failed if self._videos == 1 else {"windows_per_s": self._outcome.windows, **failed}


def _make(clip: Clip, array: Path, how: Extraction, outcome: Outcome) -> Generator[tuple[int, int]]:
    """Writes one video's features; yields the windows of each batch and of all."""
    rule, made_from = how.settings.windows, how.made_from(clip)
    with one_file():
        video = _open(clip, how)
    with video:
        frames = video.frame_count
        fps = how.fps
        if fps is None:
            with one_file():
                fps = frames_per_second(video, clip.path)
        parts = clip_features(
            how.model, video, how.settings, batch=how.batch, device=how.device, bf16=how.bf16
        )
        told = {
            "frames": frames,
            "fps": fps,
            "stride": rule.stride,
            "window": rule.span,
            "padded": rule.pads(frames),
            "centres": None if fps is None else rule.centres(frames, fps),
            "norm": how.model.norm_applied,
            MADE_FROM: made_from,
            **how.notes,
        }
        shape = (rule.count(frames), *how.model.shape(rule.length, how.settings.size))
        with closing(parts):  # before the video, which it reads
            for count in write_features(array, shape, parts, told):
                yield count, shape[0]
    outcome.made += 1
    outcome.padded += rule.pads(frames)


def _open(clip: Clip, how: Extraction) -> VideoReader:
    if clip.total < 0:
        return find_decoder(how.decoder).open(clip.path)
    return FolderReader(clip.path, clip.start, clip.total, how.name_pattern)


def _tell(report: Path, clip: Clip, error: DecodeError) -> None:
    report.parent.mkdir(parents=True, exist_ok=True)
    about = {"path": str(clip.path), "line": clip.line, "reason": error.reason}
    if error.trace:
        about["trace"] = error.trace
    file = AppendFile(report)
    try:
        file.write(json.dumps(about) + "\n")
    finally:
        file.close()


def summary(outcome: Outcome, folder: Path) -> str:
    """The outcome in words, a row per subject."""
    rows = [
        ("features", f"{outcome.made:,} videos with {outcome.windows:,} windows in {folder}"),
        ("were there", f"{outcome.skipped:,} videos"),
    ]
    if outcome.padded:
        rows.append(("too short", f"{outcome.padded:,} videos, one padded window each"))
    if outcome.failed:
        rows.append(("failed", f"{len(outcome.failed):,} videos, see {outcome.report}"))
        rows += [("", f"{PurePath(p)}: {why}") for p, why in outcome.failed[:_SHOWN]]
    return "\n".join(f"{name:<11} {text}" for name, text in rows)
