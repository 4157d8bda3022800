"""A list's videos decoded into the cache beforehand, in processes that may crash or hang."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from videomae_fast.data.cache.entry import DamagedEntryError, Origin, OtherVersionError, open_entry
from videomae_fast.data.cache.space import CACHED, FULL, Space
from videomae_fast.data.cache.videos import damage, fill
from videomae_fast.data.decoders import find_decoder
from videomae_fast.data.errors import MISSING, OutputError
from videomae_fast.data.files import write_lines
from videomae_fast.data.lists import load_list
from videomae_fast.data.lists.sources import where_paths_start
from videomae_fast.data.loader.numbered import NumberedFiles
from videomae_fast.data.loader.workers import Outcome, WorkerPool
from videomae_fast.errors import UsageError, VideoMAEFastError
from videomae_fast.progress import ProgressLine
from videomae_fast.recipes.source import ListFormat


@dataclass(frozen=True)
class FillJob:
    """A video to add."""

    path: Path
    folder: Path
    limit_bytes: int
    decoder: str


@dataclass(frozen=True)
class Filled:
    """What became of a video.

    reason: why it was not added, empty where it was; room: bytes left in the cache; damage: an
    entry that was not served, and why; other_version: whether there was one of another version of
    this library; numbering: why the video had to be decoded to number its frames, or None.
    """

    reason: str
    room: int
    damage: str = ""
    other_version: bool = False
    numbering: str | None = None


@dataclass
class CacheFill:
    """What :func:`fill_cache` did: numbers of videos, but ``folders``, which are lines.

    added; before: were there already; other_version: were there in the format of another version
    of this library, and are not any more; no_room: for want of room; others: not added for another
    reason, like a second command that fills the same folder; bad: can't be decoded; bad_files:
    where they are named; bytes: of all entries in the folder.
    """

    bad_files: Path
    videos: int = 0
    folders: int = 0
    added: int = 0
    before: int = 0
    no_room: int = 0
    others: int = 0
    bad: int = 0
    bytes: int = 0
    other_version: int = 0


def fill_video(job: FillJob) -> Filled:
    """Adds a video to the cache.

    Raises :class:`~videomae_fast.data.errors.DecodeError` with the reason for a bad file, and
    :class:`OutputError` where the folder can't be read or written.
    """
    space, decoder = _space(job.folder, job.limit_bytes), find_decoder(job.decoder)
    found, other_version = "", False
    try:
        origin = Origin.of(job.path, decoder.name)
    except OSError:
        decoder.open(job.path).close()  # raises the reason
        raise
    try:
        with _blaming(job.folder):
            entry = open_entry(job.folder / origin.name, origin)
            if entry is not None:
                entry.close()
                return Filled(CACHED, space.room())
    except DamagedEntryError as error:
        found = damage(job.folder / origin.name, origin, error)
    except OtherVersionError:
        other_version = True
    with decoder.open(job.path) as video:
        height, width, channels = video.read([0]).shape[1:]
        shape = (video.frame_count, height, width, channels)
        numbering = video.numbered_by_decoding
    added = fill(space, job.path, decoder, origin, shape)
    reason = added if isinstance(added, str) else ""
    with _blaming(job.folder):
        return Filled(reason, space.room(), found, other_version, numbering)


@contextmanager
def _blaming(folder: Path) -> Iterator[None]:
    """Errors of the system are the folder's, and no reason to call a video bad."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{folder}: can't be used: {error.strerror or error}") from error


@functools.cache
def _space(folder: Path, limit_bytes: int) -> Space:
    """One per process: the folder is looked through once."""
    return Space(folder, limit_bytes)


def fill_cache(
    list_path: str | Path,
    folder: str | Path,
    limit_bytes: int,
    *,
    decoder: str = "pyav",
    format: ListFormat = "pretrain",
    root: str | Path | None = None,
    workers: int = 1,
    time_limit: float = 600.0,
    log: Callable[[str], None] = lambda _: None,
    progress: Callable[[int], ProgressLine] | None = None,
) -> CacheFill:
    """Decodes the videos of a list into ``folder``, in their order, while there is room.

    What is there already stays, so a run that was stopped in any way goes on where it was. A
    video that is too large for the room left is passed over: that costs one frame of it. Frame
    folders are left out. Bad files are named in ``<folder>/<list>.bad_files.jsonl``.

    decoder: its name, see :func:`~videomae_fast.data.decoders.find_decoder`; the others are as for
    :class:`CachedVideos` and :func:`videomae_fast.data.prepare.prepare`.

    Raises :class:`~videomae_fast.data.ListError` for the list, :class:`UsageError` where it has no
    video, :class:`OutputError` where the folder can't be written (what is done is kept),
    :class:`VideoMAEFastError` where no video can be decoded, and as ``find_decoder`` does.
    """
    find_decoder(decoder)
    folder = Path(os.path.abspath(folder))
    entries = load_list(list_path, format)
    lines: dict[str, list[int]] = {}  # of each video
    summary = CacheFill(folder / f"{Path(list_path).name}.bad_files.jsonl")
    for index in range(len(entries)):
        entry = entries[index]
        if entry.is_video:
            path = os.path.abspath(os.path.join(root or "", entry.path))
            lines.setdefault(path, []).append(entry.line)
        else:
            summary.folders += 1
    if not lines:
        raise UsageError(f"{list_path}: no line of a video, only frame folders: nothing to cache")
    summary.videos = len(lines)

    room = limit_bytes
    jobs = (FillJob(Path(path), folder, limit_bytes, decoder) for path in lines)
    bad: list[dict[str, object]] = []
    numbered = NumberedFiles()
    line = None if progress is None else progress(len(lines))
    with WorkerPool(fill_video, workers=min(workers, len(lines)), time_limit=time_limit) as pool:
        for done, outcome in enumerate(pool.run(jobs), start=1):
            result = outcome.result
            if result is None:
                bad += _bad_lines(outcome, lines, list_path)
                summary.bad += 1
            else:
                summary.added += not result.reason
                summary.before += result.reason == CACHED
                summary.no_room += result.reason == FULL
                summary.others += result.reason not in ("", CACHED, FULL)
                summary.other_version += result.other_version
                room = result.room
                if result.damage:
                    log(result.damage)
                if (told := numbered.tell(str(outcome.task.path), result.numbering)) is not None:
                    log(told)
            if line is not None:
                line.update(done, **_shown(summary, limit_bytes - room))
    summary.bytes = _total(folder, limit_bytes)
    if (told := numbered.summary()) is not None:
        log(told)
    if line is not None:
        line.finish(summary.videos, **_shown(summary, summary.bytes))
    write_lines(summary.bad_files, (json.dumps(one, ensure_ascii=False) + "\n" for one in bad))
    lost = all(one["reason"] in MISSING for one in bad)
    if summary.bad == summary.videos:
        listed = (entries[index] for index in range(len(entries)))
        first = os.path.join(root or "", next(one.path for one in listed if one.is_video))
        raise VideoMAEFastError(
            f"none of {summary.videos:,} videos can be decoded; see {summary.bad_files}. "
            f"The first: {bad[0]['path']}: {bad[0]['reason']}"
            + (f". {where_paths_start(first)}" if lost else "")
        )
    return summary


def _shown(summary: CacheFill, taken: int) -> dict[str, int]:
    return {
        "cached": summary.added + summary.before,
        "MB": taken // 1_000_000,
        "no room": summary.no_room,
        "bad": summary.bad,
    }


def _bad_lines(
    outcome: Outcome[FillJob, Filled], lines: dict[str, list[int]], list_path: str | Path
) -> Iterator[dict[str, object]]:
    """The lines of a bad file for the report.

    Raises :class:`OutputError` where it is not the file but the cache.
    """
    problem, path = outcome.problem, str(outcome.task.path)
    assert problem is not None
    if isinstance(problem.error, OutputError):
        raise OutputError(
            f"{problem.reason}. What is done is kept: make room or give a smaller limit, and run "
            "the same command again"
        )
    for line in lines[path]:
        yield {"path": path, "list_path": str(list_path), "line": line, "reason": problem.reason}


def _total(folder: Path, limit_bytes: int) -> int:
    try:
        return Space(folder, limit_bytes).scan()
    except OSError as error:
        raise OutputError(f"{folder}: can't be read: {error.strerror or error}") from error
