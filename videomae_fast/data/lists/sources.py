"""Sources: data lists with what is needed to read them, to be mixed by weight."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.errors import ListError
from videomae_fast.data.lists.reading import ClipList, Entry, load_list
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
    entries: ClipList
    share: float

    def __len__(self) -> int:
        return len(self.entries)

    def file(self, entry: Entry) -> Path:
        """The entry's path joined to the root.

        Args:
            entry: of this source.

        Returns:
            The path; an absolute one stays as it is.
        """
        return Path(entry.path) if self.source.root is None else self.source.root / entry.path


def load_sources(sources: Sequence[Source]) -> list[LoadedSource]:
    """Reads the lists of sources and settles their weights.

    Args:
        sources: at least one.

    Returns:
        The sources with their entries and shares, in their order.

    Raises:
        ListError: a list that can't be read, or a source without entries.
        ValueError: no source, or some with a weight and others without.
    """
    if not sources:
        raise ValueError("no source: name at least one data list")
    # All lists are held while parts are taken, so that a shared one is parsed and kept once.
    lists = [load_list(part.path, part.format, start=part.first_frame) for part in sources]
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


def _entries(source: Source, entries: ClipList) -> ClipList:
    keep = _kept(source, entries)
    if keep.all():
        return entries
    if not keep.any():
        wanted = {"contains": source.contains, "excludes": source.excludes, "only": source.only}
        chosen = ", ".join(f"{name}={value!r}" for name, value in wanted.items() if value)
        raise ListError(f"{source.path}: none of its {len(entries)} entries is kept by {chosen}")
    return entries.select(keep)


def _kept(source: Source, entries: ClipList) -> NDArray[np.bool_]:
    keep = np.ones(len(entries), dtype=np.bool_)
    if source.only is not None:
        keep &= (entries.total < 0) == (source.only == "videos")
    if source.contains is not None:
        keep &= _containing(source, entries, source.contains)
    for part in source.excludes:
        keep &= ~_containing(source, entries, part)
    return keep


def _containing(source: Source, entries: ClipList, part: str) -> NDArray[np.bool_]:
    if source.root is not None and part in str(source.root):
        return np.ones(len(entries), dtype=np.bool_)
    return entries.containing(part)
