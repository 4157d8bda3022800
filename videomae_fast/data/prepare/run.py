"""A list of videos in, a list of training-friendly files out; what was done is never done again."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from videomae_fast.data.errors import DecodeError, OutputError, sentence
from videomae_fast.data.files import write_lines
from videomae_fast.data.lists import ClipList, Entry, list_line, load_list
from videomae_fast.data.lists.sources import where_paths_start
from videomae_fast.data.loader.numbered import NumberedFiles
from videomae_fast.data.loader.workers import Outcome, WorkerPool
from videomae_fast.data.lock import LOCK
from videomae_fast.data.order import permutation
from videomae_fast.data.prepare.journal import Journal, Record, State
from videomae_fast.data.prepare.names import Names
from videomae_fast.data.prepare.reading_speed import ReadingSpeed, reading_speed
from videomae_fast.data.prepare.settings import PrepareSettings
from videomae_fast.data.prepare.transcoding import Job, Transcoded, transcode
from videomae_fast.errors import UsageError, VideoMAEFastError
from videomae_fast.progress import ProgressLine
from videomae_fast.recipes.source import ListFormat

JOURNAL, VIDEOS, PARTIAL = "prepare.jsonl", "videos", ".partial"

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
    videos = {_source(entry, root): entry.path for entry in _each(entries) if entry.is_video}
    if not videos:
        raise UsageError(f"{list_path}: no line of a video, only frame folders: nothing to prepare")

    with Journal(output / JOURNAL, settings) as journal:
        shutil.rmtree(output / PARTIAL, ignore_errors=True)  # what a kill left behind
        jobs = dict(_jobs(videos, journal, output, settings, retry_failed))
        log(_plan(videos, jobs, journal))
        try:
            if jobs:
                _transcode_all(jobs, journal, output, workers, time_limit, log, progress)
        finally:
            shutil.rmtree(output / PARTIAL, ignore_errors=True)
        records = {source: journal.records[source] for source in videos}

    good = {source: record.made for source, record in records.items() if record.made is not None}
    lines, bad, folders = [], [], 0
    for entry in _each(entries):
        source = _source(entry, root)
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
            + (f". {where_paths_start(_listed(next(iter(videos.values())), root))}" if lost else "")
        )
    write_lines(paths.list, lines)
    pairs = [
        (Path(source), output / VIDEOS / str(records[source].output))
        for source in good
        if _state(source) is not None
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
    if paths.list.name in (JOURNAL, VIDEOS, PARTIAL, LOCK):
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


def _each(entries: ClipList) -> Iterator[Entry]:
    return (entries[index] for index in range(len(entries)))


def _listed(path: str, root: str | Path | None) -> str:
    return os.path.join(root or "", path)


def _source(entry: Entry, root: str | Path | None) -> str:
    return os.path.abspath(_listed(entry.path, root))


def _state(path: str | Path) -> State | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # a ValueError: a null byte in the path
        return None
    return status.st_size, status.st_mtime_ns


def _jobs(
    videos: dict[str, str],
    journal: Journal,
    output: Path,
    settings: PrepareSettings,
    retry_failed: bool,
) -> Iterator[tuple[Job, State | None]]:
    """What is left to do, with the sources' states. ``videos``: what the list calls a source."""
    known = journal.records
    names = Names(record.output for record in known.values() if record.output is not None)
    for number, (source, path) in enumerate(videos.items()):
        record, state = known.get(source), _state(source)
        if record is not None and record.made is not None:
            made = _state(output / VIDEOS / str(record.output))
            whole = made is not None and made[0] == record.made.bytes
            if whole and state in (record.state, None):  # a source may be gone once it is done
                continue
        elif record is not None and state == record.state and not retry_failed:
            continue
        name = names.name(path) if record is None or record.output is None else record.output
        partial = output / PARTIAL / f"{number}.mp4"
        yield Job(Path(source), output / VIDEOS / name, partial, settings), state


def _plan(videos: dict[str, str], jobs: dict[Job, State | None], journal: Journal) -> str:
    left = {str(job.source) for job in jobs}
    known = [journal.records[source] for source in videos if source not in left]
    failed = sum(record.made is None for record in known)
    plan = f"{len(videos):,} files: {len(jobs):,} to transcode, {len(known) - failed:,} done"
    if failed:
        plan += f", {failed:,} failed before (--retry-failed tries them again)"
    return plan


def _transcode_all(
    jobs: dict[Job, State | None],
    journal: Journal,
    output: Path,
    workers: int,
    time_limit: float,
    log: Callable[[str], None],
    progress: Callable[[int], ProgressLine] | None,
) -> None:
    line = None if progress is None else progress(len(jobs))
    done = bad = frames = 0
    told = False
    numbered = NumberedFiles()
    with WorkerPool(transcode, workers=min(workers, len(jobs)), time_limit=time_limit) as pool:
        for outcome in pool.run(jobs):
            record = _record(outcome, jobs[outcome.task], output / VIDEOS)
            journal.add(record)
            done += 1
            frames += 0 if record.made is None else record.made.frames
            bad += record.made is None
            why = None if record.made is None else record.made.numbered_by_decoding
            if (news := numbered.tell(record.source, why)) is not None:
                log(news)
            if record.kind == "unexpected" and not told and outcome.problem is not None:
                told = True
                log(outcome.problem.trace)
            if line is not None:
                line.update(done, frames_per_s=frames, bad=bad)
    if (news := numbered.summary()) is not None:
        log(news)
    if line is not None:
        line.finish(done, frames_per_s=frames, bad=bad)


def _record(outcome: Outcome[Job, Transcoded], state: State | None, videos: Path) -> Record:
    """What became of a file that was in this state before.

    Raises :class:`OutputError` where the new file could not be written.
    """
    job, problem = outcome.task, outcome.problem
    source = str(job.source)
    if outcome.result is not None:
        return Record(source, state, str(job.target.relative_to(videos)), outcome.result)
    job.partial.unlink(missing_ok=True)
    assert problem is not None
    if isinstance(problem.error, OutputError):
        raise OutputError(
            f"{problem.reason}. What is done is kept: make room or mend it, and run the same "
            "command again"
        )
    if isinstance(problem.error, DecodeError):
        kind = "missing" if _state(source) is None else "unreadable"
        return Record(source, state, kind=kind, reason=problem.reason)
    if problem.error is not None:
        return Record(source, state, kind="unexpected", reason=problem.reason)
    return Record(source, state, kind=problem.kind, reason=problem.reason)


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
