"""Sources: data lists and stores with what is needed to read them, to be mixed by weight."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.errors import ListError
from videomae_fast.data.lists.reading import ClipList, Entry, load_list
from videomae_fast.data.store.entries import StoreEntries
from videomae_fast.data.store.opening import StoredClip, is_store, open_store
from videomae_fast.errors import UsageError
from videomae_fast.recipes import schema
from videomae_fast.recipes.source import Source


@dataclass(frozen=True, eq=False)
class LoadedSource:
    """A source with its entries read.

    Attributes:
        source: what it was read from.
        entries: those that it keeps.
        share: of all draws, between 0 and 1.
    """

    source: Source
    entries: ClipList | StoreEntries
    share: float

    def __len__(self) -> int:
        return len(self.entries)

    def file(self, index: int) -> Path | StoredClip:
        """What an entry is read from: a path, joined to the root unless it is absolute, or a row of
        a store."""
        if isinstance(self.entries, StoreEntries):
            return self.entries.clip(index)
        path = self.entries[index].path
        return Path(path) if self.source.root is None else self.source.root / path

    def brief(self, index: int) -> Entry:
        """An entry for who reads it with :meth:`file`; of a store, without its path."""
        if isinstance(self.entries, StoreEntries):
            return self.entries.brief(index)
        return self.entries[index]

    def digest(self) -> str:
        """SHA-256 of what names the clips: of the list, or of a store's head at this version."""
        if isinstance(self.entries, StoreEntries):
            return self.entries.store.digest()
        return digest_of(self.source)


def digest_of(source: Source) -> str:
    """SHA-256 of a list, or of a store's head at the source's version.

    Raises:
        UsageError: it can't be read.
    """
    if is_store(source.path):
        return open_store(source.path, source.version).digest()
    try:
        with source.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{source.path}: can't be read: {error.strerror}") from None


def load_sources(sources: Sequence[Source]) -> list[LoadedSource]:
    """Reads the lists of sources, opens the stores among them, and settles their weights.

    Args:
        sources: at least one.

    Returns:
        The sources with their entries and shares, in their order.

    Raises:
        ListError, StoreError: a list or store that can't be read, or one without entries.
        UsageError: options that it has no use for.
        ValueError: no source, or some with a weight and others without.
    """
    if not sources:
        raise ValueError("no source: name at least one data list")
    # All lists are held while parts are taken, so that a shared one is parsed and kept once.
    lists = [_loaded(source) for source in sources]
    entries = [_entries(source, whole) for source, whole in zip(sources, lists, strict=True)]
    given = [source.weight for source in sources if source.weight is not None]
    if given and len(given) < len(sources):
        missing = next(source.label for source in sources if source.weight is None)
        raise ValueError(
            f"{missing} has no weight but other sources have: give a weight to all of them, "
            "or to none (then each is drawn as often as it has entries)"
        )
    weights = given or [float(len(part)) for part in entries]
    total = sum(weights)
    return [
        LoadedSource(source, part, weight / total)
        for source, part, weight in zip(sources, entries, weights, strict=True)
    ]


def _loaded(source: Source) -> ClipList | StoreEntries:
    """All entries of a list or a store.

    Raises:
        ListError, StoreError: it can't be read.
        UsageError: options of a list for a store, or of a store for a list.
    """
    if not is_store(source.path):
        if source.version is not None:
            raise UsageError(f"{source.path}: version is of a store, and this is a list")
        return load_list(source.path, source.format, start=source.first_frame)
    whole = Source(source.path)
    for name in ("root", "name_pattern", "first_frame"):
        if getattr(source, name) != getattr(whole, name):
            raise UsageError(
                f"{source.path}: {name} is of a list of files, and this is a store: leave it out"
            )
    return StoreEntries(open_store(source.path, source.version))


def unlabeled_hybrid(
    list_path: str | Path,
    root: str | Path | None = None,
    *,
    something_v2: str = "SomethingV2",
    ava: str = "AVA2.2",
) -> list[Source]:
    """The sources of UnlabeledHybrid from its one list, without weights (plain concatenation).

    As the official loader tells them apart by their path: frame folders of Something-Something
    V2 are sampled at stride 2 (they hold 12 frames a second) and named ``img_{:05}.jpg``, those of
    AVA are named ``image_{:06}.jpg``; everything else keeps the data set's stride. Parts that the
    list does not have are left out.

    Args:
        list_path: the list.
        root: folder that its relative paths start from; None: the working folder.
        something_v2: what paths of Something-Something V2 contain.
        ava: what paths of AVA contain.

    Returns:
        A source for each part that has entries.

    Raises:
        ListError: as :func:`~videomae_fast.data.lists.load_list` does.

    Source: VideoMAE V2, ``dataset/pretrain_datasets.py`` (HybridVideoMAE).
    """
    whole = Source(Path(list_path), None if root is None else Path(root))
    parts = [
        replace(whole, only="videos", name="videos"),
        replace(whole, only="folders", contains=something_v2, stride=2, name="SomethingV2 frames"),
        replace(
            whole,
            only="folders",
            contains=ava,
            excludes=(something_v2,),
            name_pattern="image_{:06}.jpg",
            name="AVA frames",
        ),
        replace(whole, only="folders", excludes=(something_v2, ava), name="other frames"),
    ]
    entries = load_list(whole.path)
    return [part for part in parts if _kept(part, entries).any()]


def sources_of(data: schema.Data) -> list[Source]:
    """A configuration's lists, split into the parts of UnlabeledHybrid where its format says so.

    Raises:
        UsageError: no list, or options that UnlabeledHybrid's parts set themselves.
        ListError: a list that can't be read.
    """
    if not data.lists:
        raise UsageError("data.lists names no list: give at least one with --data LIST")
    if data.format == "plain":
        return list(data.lists)
    parts: list[Source] = []
    for source in data.lists:
        if is_store(source.path):  # it holds no folders of frames, only the part that is videos
            parts.append(source)
            continue
        if source != Source(source.path, source.root):
            raise UsageError(
                f"{source.path}: with data.format unlabeled-hybrid a list takes no option but "
                "root, since its parts set their own; use --data-format plain for others"
            )
        parts += unlabeled_hybrid(source.path, source.root)
    return parts


def where_paths_start(path: str) -> str:
    """Where a missing file of a list was looked for, and how that is changed."""
    if os.path.isabs(path):
        return f"{path} is an absolute path: is it right, and its disk there?"
    return (
        f"{path} was looked for at {os.path.abspath(path)}: relative paths of a list start from "
        "the working folder, or from its root (pretrain: --data LIST,root=FOLDER; other commands: "
        "--root FOLDER)"
    )


def _entries(source: Source, entries: ClipList | StoreEntries) -> ClipList | StoreEntries:
    if not (source.contains or source.excludes or source.only):
        return entries  # nothing is held per row of a store
    keep = _kept(source, entries)
    if keep.all():
        return entries
    if not keep.any():
        wanted = {"contains": source.contains, "excludes": source.excludes, "only": source.only}
        chosen = ", ".join(f"{name}={value!r}" for name, value in wanted.items() if value)
        raise ListError(f"{source.path}: none of its {len(entries)} entries is kept by {chosen}")
    return entries.select(keep)


def _kept(source: Source, entries: ClipList | StoreEntries) -> NDArray[np.bool_]:
    keep = np.ones(len(entries), dtype=np.bool_)
    if source.only is not None:
        keep &= (entries.total < 0) == (source.only == "videos")
    if source.contains is not None:
        keep &= _containing(source, entries, source.contains)
    for part in source.excludes:
        keep &= ~_containing(source, entries, part)
    return keep


def _containing(source: Source, entries: ClipList | StoreEntries, part: str) -> NDArray[np.bool_]:
    if source.root is not None and part in str(source.root):
        return np.ones(len(entries), dtype=np.bool_)
    return entries.containing(part)
