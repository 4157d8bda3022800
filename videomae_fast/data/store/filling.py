"""Clips written into a store: a list's, tar files', or another store's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from videomae_fast.data.errors import DecodeError
from videomae_fast.data.files import write_lines
from videomae_fast.data.loader.workers import WorkerPool, in_order
from videomae_fast.data.order import permutation
from videomae_fast.data.store.base import ClipStore, StoredClipError, StoreError
from videomae_fast.data.store.incoming import (
    Facts,
    Incoming,
    ListClips,
    TarMember,
    look,
    stored_clip,
    tar_clips,
)
from videomae_fast.data.store.lance import is_lance_store
from videomae_fast.data.store.lance_writing import LanceWriter
from videomae_fast.data.store.opening import is_store, open_store
from videomae_fast.data.store.tar_writing import TarWriter
from videomae_fast.errors import UsageError, VideoMAEFastError
from videomae_fast.progress import ProgressLine
from videomae_fast.recipes.source import ListFormat, remote_url

TAR_BYTES: Final = 10**9
"""After so many bytes a tar file ends: few files, and small enough to be moved about."""


class StoreWriter(Protocol):
    """What takes clips and makes them a store's next version."""

    size: int
    """Bytes of the clips so far."""

    def __len__(self) -> int: ...

    def add(self, clip: Incoming, facts: Facts, content: bytes) -> None: ...

    def commit(self) -> int: ...


@dataclass(frozen=True)
class Filling:
    """How clips are looked at and written.

    Attributes:
        format, root: of lists.
        below: folder that sources are told from, where a list names them with more.
        only_new: leave out clips that the store has already, by their SHA-256.
        shuffle: seed of an order to write a list in; None keeps the list's.
        kind: of a store that is made.
        tar_bytes: of a tar file.
        workers: processes.
        time_limit: seconds for one clip.
        progress: from a number of clips to a line to keep up.
    """

    format: ListFormat = "pretrain"
    root: Path | None = None
    below: Path | None = None
    only_new: bool = False
    shuffle: int | None = None
    kind: Literal["tar", "lance"] = "tar"
    tar_bytes: int = TAR_BYTES
    workers: int = 1
    time_limit: float = 120.0
    progress: Callable[[int], ProgressLine] | None = None


@dataclass(frozen=True)
class Filled:
    """What was written.

    Attributes:
        version: of the store now; the one before where all clips were there already.
        rows, bytes: of the new clips.
        known: clips that were there already.
        bad: clips that were left out.
        bad_files: where these are named.
    """

    version: int
    rows: int
    bytes: int
    bad: int
    bad_files: Path
    known: int = 0


def fill_store(store: str | Path, sources: Sequence[Path], how: Filling, *, new: bool) -> Filled:
    """Writes clips into a store, as its next version.

    A clip that can't be read as a video is left out, and named in ``STORE.bad_files.jsonl``.

    Args:
        store: folder of the store.
        sources: one list, one store, or tar files.
        how: they are written.
        new: the store is to be made; else it has to be there.

    Raises:
        StoreError, ListError, UsageError: what is there, or comes, can't be used.
        OutputError: it can't be written; the store is as it was.
        VideoMAEFastError: no clip can be stored.
    """
    store = Path(store)
    _check_local(store)
    if new and store.exists() and not _may_become_one(store, sources):
        raise UsageError(
            f"{store} is there already: give another folder, or add to a store with store append"
        )
    if not new and not is_store(store):
        raise UsageError(f"{store} is no store: videomae-fast store import makes one")
    bad: list[dict[str, Any]] = []
    known = 0
    kind = how.kind if new else "lance" if is_lance_store(store) else "tar"
    with LanceWriter(store) if kind == "lance" else TarWriter(store, how.tar_bytes) as writer:
        if all(_is_tar(one) for one in sources):
            if how.shuffle is not None and isinstance(writer, TarWriter):
                raise UsageError("--shuffle: clips of tar files stay where they are in them")
            found = [clip for tar in sources for clip in tar_clips(tar)]
            if isinstance(writer, TarWriter):
                _take_tars(writer, found, how, bad)
            else:
                _add(writer, found, how, bad, frozenset())
        elif len(sources) > 1:
            raise UsageError("give one list, one store, or tar files")
        elif is_store(sources[0]):
            _copy(writer, open_store(sources[0]), how, bad)
        else:
            clips = ListClips(sources[0], how.format, how.root, how.below)
            there = _digests(store) if how.only_new and not new else frozenset()
            known = _add(writer, clips, how, bad, there)
        bad_files = store.with_name(f"{store.name}.bad_files.jsonl")
        write_lines(bad_files, (json.dumps(one, ensure_ascii=False) + "\n" for one in bad))
        if known and not len(writer):
            return Filled(open_store(store).version, 0, 0, len(bad), bad_files, known)
        if not len(writer):
            first = bad[0]
            raise VideoMAEFastError(
                f"none of {len(bad):,} clips can be stored; see {bad_files}. The first: "
                f"{first['path'] or first['place']}: {first['reason']}"
            )
        version = writer.commit()
        return Filled(version, len(writer), writer.size, len(bad), bad_files, known)


def _digests(store: Path) -> frozenset[bytes]:
    """SHA-256 of the clips that a store has."""
    there = open_store(store)
    return frozenset(there.row(row).sha256 for row in range(len(there)))


def export_store(store: ClipStore, folder: Path, how: Filling) -> Filled:
    """Writes a store's clips as tar files with an index, in its order; a damaged one is left out.

    Raises:
        UsageError: the folder is there already.
        OutputError: it can't be written.
    """
    _check_local(folder)
    if folder.exists():
        raise UsageError(f"{folder} is there already: give another folder")
    bad: list[dict[str, Any]] = []
    with TarWriter(folder, how.tar_bytes) as writer:
        _copy(writer, store, how, bad)
        bad_files = folder.with_name(f"{folder.name}.bad_files.jsonl")
        write_lines(bad_files, (json.dumps(one, ensure_ascii=False) + "\n" for one in bad))
        if not len(writer):
            raise VideoMAEFastError(f"no clip of {store.path} can be read; see {bad_files}")
        return Filled(writer.commit(), len(writer), writer.size, len(bad), bad_files)


def _check_local(store: Path) -> None:
    if (url := remote_url(store)) is not None:
        raise UsageError(
            f"{url}: stores are written on a disk: write one there and copy its folder, store.json "
            "last"
        )


def _may_become_one(store: Path, sources: Sequence[Path]) -> bool:
    """Whether this is a folder that is empty, or that tar files are to be indexed in."""
    if not store.is_dir() or is_store(store):
        return False
    inside = [one for one in sources if one.resolve().is_relative_to(store.resolve())]
    return bool(inside) or not any(store.iterdir())


def _is_tar(path: Path) -> bool:
    return path.suffix == ".tar" and not path.is_dir()


def _add(
    writer: StoreWriter,
    clips: ListClips | Sequence[Incoming],
    how: Filling,
    bad: list[dict[str, Any]],
    there: frozenset[bytes],
) -> int:
    """Looks at clips in processes, and writes those that are not there in their order; how many
    are."""
    known = 0
    jobs = (
        replace(clips[number], index=place) for place, number in enumerate(_order(len(clips), how))
    )
    for clip, facts in _looked_at(jobs, len(clips), how, bad):
        assert clip.video is not None
        if facts.sha256 in there:
            known += 1
            continue
        try:
            loaded = clip.video.load()
            if loaded.checksum != facts.crc32:
                raise DecodeError("it was changed while it was stored")
        except DecodeError as error:
            bad.append(_bad(clip, error.reason))
            continue
        writer.add(clip, facts, loaded.content)
    return known


def _order(count: int, how: Filling) -> Iterable[int]:
    return range(count) if how.shuffle is None else permutation(count, how.shuffle).tolist()


def _take_tars(
    writer: TarWriter, found: Sequence[Incoming], how: Filling, bad: list[dict[str, Any]]
) -> None:
    jobs = [replace(clip, index=number) for number, clip in enumerate(found)]
    numbers: dict[Path, int] = {}
    for clip, facts in _looked_at(jobs, len(jobs), how, bad):
        member = clip.video
        assert isinstance(member, TarMember)
        if member.tar not in numbers:
            numbers[member.tar] = writer.take(member.tar)
        writer.add_member(clip, facts, member.name, numbers[member.tar], member.offset)


def _copy(writer: StoreWriter, store: ClipStore, how: Filling, bad: list[dict[str, Any]]) -> None:
    """Clips with what their store knows of them."""
    line = None if how.progress is None else how.progress(len(store))
    for done, number in enumerate(_order(len(store), how), 1):
        try:
            writer.add(*stored_clip(store, number))
        except StoredClipError as error:
            bad.append({"path": None, "place": error.place, "reason": error.reason})
        if line is not None:
            line.update(done, bad=len(bad))
    if line is not None:
        line.finish(len(store), bad=len(bad))


def _looked_at(
    jobs: Iterable[Incoming], count: int, how: Filling, bad: list[dict[str, Any]]
) -> Iterator[tuple[Incoming, Facts]]:
    """The clips that can be stored, in their order; of the others ``bad`` tells."""
    line = None if how.progress is None else how.progress(count)
    done = 0
    if not count:
        raise StoreError("there is no clip to be stored")
    with WorkerPool(look, workers=min(how.workers, count), time_limit=how.time_limit) as pool:
        for outcome in in_order(pool.run(jobs), lambda clip: clip.index):
            done += 1
            if outcome.result is not None:
                yield outcome.task, outcome.result
            elif outcome.problem is not None:
                bad.append(_bad(outcome.task, outcome.problem.reason))
            if line is not None:
                line.update(done, bad=len(bad))
    if line is not None:
        line.finish(done, bad=len(bad))


def _bad(clip: Incoming, reason: str) -> dict[str, Any]:
    return {"path": clip.source, "place": clip.place, "reason": reason}
