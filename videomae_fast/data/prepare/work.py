"""The work of preparing: which files are to be made, and their making with a journal."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from videomae_fast.data.errors import DecodeError, OutputError
from videomae_fast.data.lists import ClipList, Entry
from videomae_fast.data.loader.numbered import NumberedFiles
from videomae_fast.data.loader.workers import Outcome, WorkerPool
from videomae_fast.data.prepare.journal import Journal, Record, State
from videomae_fast.data.prepare.names import Names
from videomae_fast.data.prepare.settings import PrepareSettings
from videomae_fast.data.prepare.transcoding import Job, Transcoded, transcode
from videomae_fast.progress import ProgressLine
from videomae_fast.recipes.source import ListFormat

JOURNAL: Final = "prepare.jsonl"
VIDEOS: Final = "videos"
PARTIAL: Final = ".partial"


@dataclass(frozen=True)
class Work:
    """How files are made.

    Attributes:
        format, root: of the list.
        workers: processes, one file and one thread each.
        time_limit: seconds per file.
        retry_failed: try files again that failed in an earlier run.
        log: receives messages.
        progress: from the number of files to a line to keep up.
    """

    format: ListFormat = "pretrain"
    root: str | Path | None = None
    workers: int = 1
    time_limit: float = 1800.0
    retry_failed: bool = False
    log: Callable[[str], None] = lambda _: None
    progress: Callable[[int], ProgressLine] | None = None


def videos_of(entries: ClipList, lines: Iterable[int], root: str | Path | None) -> dict[str, str]:
    """The videos of some lines, in order, with what the list calls them."""
    some = (entries[line] for line in lines)
    return {source_of(entry, root): entry.path for entry in some if entry.is_video}


def each(entries: ClipList) -> Iterator[Entry]:
    """The entries of a list."""
    return (entries[index] for index in range(len(entries)))


def listed(path: str, root: str | Path | None) -> str:
    """A path of a list, joined to the root."""
    return os.path.join(root or "", path)


def source_of(entry: Entry, root: str | Path | None) -> str:
    """What the journal calls a file: its absolute path."""
    return os.path.abspath(listed(entry.path, root))


def state_of(path: str | Path) -> State | None:
    """Bytes and time of change of a file; None where there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # a ValueError: a null byte in the path
        return None
    return status.st_size, status.st_mtime_ns


def jobs_of(
    videos: Mapping[str, str],
    known: Mapping[str, Record],
    output: Path,
    settings: PrepareSettings,
    work: Work,
    partials: Path,
    named: Mapping[str, str] | None = None,
) -> Iterator[tuple[Job, State | None]]:
    """What is left to do, with the sources' states.

    Args:
        videos: what the list calls each source.
        known: what the journal says.
        output: the new files are in its ``videos/``.
        settings: of the new files.
        work: how they are made.
        partials: folder of files that are not whole yet.
        named: names of new files by source, where they are settled; else each gets a free one.
    """
    names = Names(record.output for record in known.values() if record.output is not None)
    for number, (source, path) in enumerate(videos.items()):
        record, state = known.get(source), state_of(source)
        if record is not None and record.made is not None:
            made = state_of(output / VIDEOS / str(record.output))
            whole = made is not None and made[0] == record.made.bytes
            if whole and state in (record.state, None):  # a source may be gone once it is done
                continue
        elif record is not None and state == record.state and not work.retry_failed:
            continue
        if record is not None and record.output is not None:
            name = record.output
        else:
            name = names.name(path) if named is None else named[source]
        partial = partials / f"{number}.mp4"
        yield Job(Path(source), output / VIDEOS / name, partial, settings), state


def plan_of(
    videos: Mapping[str, str], jobs: Mapping[Job, State | None], records: Mapping[str, Record]
) -> str:
    """What is to be done, in words."""
    left = {str(job.source) for job in jobs}
    known = [records[source] for source in videos if source not in left]
    failed = sum(record.made is None for record in known)
    plan = f"{len(videos):,} files: {len(jobs):,} to transcode, {len(known) - failed:,} done"
    if failed:
        plan += f", {failed:,} failed before (--retry-failed tries them again)"
    return plan


def transcode_all(
    jobs: Mapping[Job, State | None], journal: Journal, output: Path, work: Work
) -> None:
    """Makes the files, and writes what became of each into the journal.

    Raises:
        OutputError: one can't be written; what is done is kept.
    """
    line = None if work.progress is None else work.progress(len(jobs))
    log = work.log
    done = bad = frames = 0
    told = False
    numbered = NumberedFiles()
    with WorkerPool(
        transcode, workers=min(work.workers, len(jobs)), time_limit=work.time_limit
    ) as pool:
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
        kind = "missing" if state_of(source) is None else "unreadable"
        return Record(source, state, kind=kind, reason=problem.reason)
    if problem.error is not None:
        return Record(source, state, kind="unexpected", reason=problem.reason)
    return Record(source, state, kind=problem.kind, reason=problem.reason)
