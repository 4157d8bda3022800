"""A list of videos in, a list of training-friendly files out; what was done is never done again."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from videomae_fast.data.errors import sentence
from videomae_fast.data.files import write_lines
from videomae_fast.data.lists import Entry, list_line, load_list
from videomae_fast.data.lists.sources import where_paths_start
from videomae_fast.data.lock import LOCK
from videomae_fast.data.order import permutation
from videomae_fast.data.prepare.journal import Journal, Record
from videomae_fast.data.prepare.reading_speed import ReadingSpeed, reading_speed
from videomae_fast.data.prepare.settings import PrepareSettings
from videomae_fast.data.prepare.shards import SHARDS, take_over
from videomae_fast.data.prepare.work import (
    JOURNAL,
    PARTIAL,
    VIDEOS,
    Work,
    each,
    jobs_of,
    listed,
    plan_of,
    source_of,
    state_of,
    transcode_all,
    videos_of,
)
from videomae_fast.errors import UsageError, VideoMAEFastError
from videomae_fast.progress import ProgressLine
from videomae_fast.recipes.source import ListFormat

REMEDIES: Final = {
    "missing": "check the path, and the folder that relative paths start from (--root)",
    "unreadable": "get a whole copy of it and run again; the new list leaves it out",
    "crashed": "the decoder can't cope with it: repair it (ffmpeg -i FILE -c copy NEW), or leave "
    "it out as the new list does",
    "timed out": "if it is only long, run again with a larger --time-limit and --retry-failed",
    "unexpected": "please report this with the file; the new list leaves it out",
}


@dataclass(frozen=True)
class Prepared:
    """What :func:`prepare` made.

    list, bad_files, report: the files it wrote; lines: of the new list; bad: lines left out;
    folders: lines of frame folders, kept as they were; files, frames, bytes: of the new videos;
    source_bytes: of their sources; speed: of reading, None where it was not timed.
    """

    list: Path
    bad_files: Path
    report: Path
    lines: int
    bad: int
    folders: int
    files: int
    frames: int
    bytes: int
    source_bytes: int
    speed: ReadingSpeed | None


def prepare(
    list_path: str | Path,
    output: str | Path,
    settings: PrepareSettings = PrepareSettings(),  # noqa: B008 (frozen)
    *,
    format: ListFormat = "pretrain",
    root: str | Path | None = None,
    workers: int = 1,
    time_limit: float = 1800.0,
    retry_failed: bool = False,
    relative_paths: bool = False,
    speed_files: int = 8,
    log: Callable[[str], None] = lambda _: None,
    progress: Callable[[int], ProgressLine] | None = None,
) -> Prepared:
    """Transcodes the videos of a list into ``output/videos``; see :class:`PrepareSettings`.

    Writes the new list (the old one's name; its order and labels, without the files that failed),
    ``<list>.bad_files.jsonl`` and ``<list>.report.json``. A run that was stopped in any way goes
    on where it was; a source that changed since is done again. Frame folders stay as they are.
    What was made in shards (:func:`~.shards.prepare_shard`) is taken over.

    format: of the list; root: folder that its relative paths start from; workers: processes, one
    file and one thread each; time_limit: seconds per file; retry_failed: try files again that
    failed in an earlier run; relative_paths: the new list's paths start from ``output``, else they
    are absolute; speed_files: how many files the reading speed is timed with, 0 for none;
    log: receives messages; progress: from the number of files to a line to keep up.

    Raises :class:`~videomae_fast.data.ListError` for the list, :class:`UsageError` where
    ``output`` can't be used for it, :class:`OutputError` where it can't be written (the disk is
    full: what is done is kept), and :class:`VideoMAEFastError` where no file could be transcoded.
    """
    started = time.monotonic()
    entries = load_list(list_path, format)
    output = Path(os.path.abspath(output))
    new_list = output / Path(list_path).name
    paths = _Paths(
        new_list,
        output / f"{new_list.name}.bad_files.jsonl",
        output / f"{new_list.name}.report.json",
    )
    _check_output(Path(list_path), paths)
    videos = videos_of(entries, range(len(entries)), root)
    work = Work(format, root, workers, time_limit, retry_failed, log, progress)
    if not videos:
        raise UsageError(f"{list_path}: no line of a video, only frame folders: nothing to prepare")

    with Journal(output / JOURNAL, settings) as journal:
        shutil.rmtree(output / PARTIAL, ignore_errors=True)  # what a kill left behind
        take_over(journal, output, settings)
        jobs = dict(jobs_of(videos, journal.records, output, settings, work, output / PARTIAL))
        log(plan_of(videos, jobs, journal.records))
        try:
            if jobs:
                transcode_all(jobs, journal, output, work)
        finally:
            shutil.rmtree(output / PARTIAL, ignore_errors=True)
        records = {source: journal.records[source] for source in videos}

    good = {source: record.made for source, record in records.items() if record.made is not None}
    lines, bad, folders = [], [], 0
    for entry in each(entries):
        source = source_of(entry, root)
        if not entry.is_video:
            folders += 1
            lines.append(list_line(entry, source, format))
        elif source in good:
            name = f"{VIDEOS}/{records[source].output}"
            new = name if relative_paths else os.path.join(output, name)
            lines.append(list_line(entry, new, format))
        else:
            bad.append(_bad_file(records[source], entry, list_path))
    write_lines(paths.bad_files, (json.dumps(one, ensure_ascii=False) + "\n" for one in bad))
    lost = all(record.kind == "missing" for record in records.values())
    if not good:
        raise VideoMAEFastError(
            f"none of {len(videos):,} files could be transcoded; see {paths.bad_files}. "
            f"The first: {bad[0]['path']}: {bad[0]['reason']}; {bad[0]['remedy']}"
            + (f". {where_paths_start(listed(next(iter(videos.values())), root))}" if lost else "")
        )
    write_lines(paths.list, lines)
    pairs = [
        (Path(source), output / VIDEOS / str(records[source].output))
        for source in good
        if state_of(source) is not None
    ]
    chosen = [pairs[index] for index in permutation(len(pairs), 0)[:speed_files].tolist()]
    if chosen:
        log(f"timing how fast {len(chosen)} files are read before and after")
    prepared = Prepared(
        list=paths.list,
        bad_files=paths.bad_files,
        report=paths.report,
        lines=len(lines),
        bad=len(bad),
        folders=folders,
        files=len(good),
        frames=sum(made.frames for made in good.values()),
        bytes=sum(made.bytes for made in good.values()),
        source_bytes=sum((records[source].state or (0, 0))[0] for source in good),
        speed=reading_speed(chosen, time_limit) if chosen else None,
    )
    _write_report(prepared, Path(list_path), settings, time.monotonic() - started)
    return prepared


@dataclass(frozen=True)
class _Paths:
    list: Path
    bad_files: Path
    report: Path


def _check_output(list_path: Path, paths: _Paths) -> None:
    """Raises UsageError where the new list would overwrite what is not its own."""
    if paths.list.exists() and paths.list.samefile(list_path):
        raise UsageError(
            f"{list_path}: the new list has the same name and would overwrite this one: give "
            "another output folder"
        )
    if paths.list.name in (JOURNAL, VIDEOS, PARTIAL, SHARDS, LOCK):
        raise UsageError(f"{list_path}: the name {paths.list.name} is taken: rename the list")
    if paths.report.exists():
        made_from = _made_from(paths.report)
        if made_from != os.path.abspath(list_path):
            raise UsageError(
                f"{paths.list} was made from {made_from}, another list of the same name: rename "
                f"{list_path} or give another output folder"
            )


def _made_from(report: Path) -> str:
    """The list that a report was written for."""
    try:
        return str(json.loads(report.read_text(encoding="utf-8"))["list"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"{report}: can't be read as this command's report ({sentence(error)}): remove it, or "
            "give another output folder"
        ) from error


def _bad_file(record: Record, entry: Entry, list_path: str | Path) -> dict[str, Any]:
    return {
        "path": record.source,
        "list_path": str(list_path),
        "line": entry.line,
        "reason": record.reason,
        "remedy": REMEDIES[record.kind],
    }


def _write_report(
    prepared: Prepared, list_path: Path, settings: PrepareSettings, seconds: float
) -> None:
    speed = prepared.speed
    report = {
        "list": os.path.abspath(list_path),
        "settings": settings.to_dict(),
        **{
            key: str(value) if isinstance(value, Path) else value
            for key, value in asdict(prepared).items()
            if key not in ("list", "report", "speed")
        },
        "new_list": str(prepared.list),
        "seconds": round(seconds, 3),
        "reading_speed": None if speed is None else {**asdict(speed), "ratio": speed.ratio},
    }
    write_lines(prepared.report, [json.dumps(report, indent=2, ensure_ascii=False) + "\n"])
