"""The clips of the study: a labelled set of the user's in folds, and rendered motions."""

from __future__ import annotations

import csv
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.gestures.folds import UNLABELLED, Clip, clips_of, fold_numbers
from benchmarks.study.rows import CLIPS, MOTIONS
from videomae_fast.data.lists import load_list
from videomae_fast.data.lock import FolderLock
from videomae_fast.data.randomness import Randomness
from videomae_fast.demo.motions import MOTIONS as CLASSES
from videomae_fast.demo.videos import render_motions
from videomae_fast.errors import UsageError

LIST_FOLDS = 5
HELD_OUT, TRAINING_FOLDS = 0, 4
"""Of the rendered set: the fold that is scored; how many folds there are to train on."""


@dataclass(frozen=True)
class LabelledSet:
    """A set.

    Attributes:
        name: of :data:`~benchmarks.study.rows.CLIPS` and :data:`~benchmarks.study.rows.MOTIONS`.
        clips: all of them.
        data: folder that their paths start from.
        folds: that are scored.
        fields: of the configurations of both runs that are the set's own.
    """

    name: str
    clips: tuple[Clip, ...]
    data: Path
    folds: tuple[int, ...]
    fields: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def classes(self) -> int:
        """How many there are."""
        return 1 + max(clip.label for clip in self.clips)

    @property
    def digest(self) -> str:
        """Of paths, labels and folds, not of pixels."""
        told = "\n".join(f"{clip.path} {clip.label} {clip.fold}" for clip in self.clips)
        return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def own_set(data: Path) -> LabelledSet:
    """The user's clips: a folder with ``groups.csv``, or a list with lines ``path label``.

    A list's clips are dealt to five folds class by class. Recordings of one place or person should
    be in one fold: for that, give a folder with a table that has the column ``fold``.

    Raises:
        FileNotFoundError, ValueError, VideoMAEFastError: no such set, or one that can't be read.
    """
    if data.is_dir():
        clips = clips_of(data)
        return LabelledSet(CLIPS, tuple(clips), data, tuple(fold_numbers(clips)))
    entries = load_list(data, "labels")
    dealt: dict[int, int] = {}
    clips = []
    for index in range(len(entries)):
        entry = entries[index]
        number = dealt.setdefault(entry.label, 0)
        dealt[entry.label] += 1
        fold = number % LIST_FOLDS if entry.label >= 0 else UNLABELLED
        clips.append(Clip(entry.path, entry.label, fold))
    if min(dealt.values()) < LIST_FOLDS:
        fewest = min(dealt, key=dealt.__getitem__)
        raise ValueError(
            f"{data}: label {fewest} has {dealt[fewest]} clips, too few for {LIST_FOLDS} folds"
        )
    return LabelledSet(CLIPS, tuple(clips), data.parent, tuple(range(LIST_FOLDS)))


@dataclass(frozen=True)
class Rendered:
    """How many rendered clips: unlabelled ones, and of each class labelled and scored ones."""

    unlabelled: int = 2000
    labelled: int = 25
    scored: int = 40
    side: int = 72
    seconds: float = 2.0
    fps: int = 12


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """While entered no other process renders in a folder; waits for one that does."""
    told = False
    while True:
        try:
            lock = FolderLock(folder, "renders clips")
            break
        except UsageError as taken:
            if not told:
                print(f"waiting: {taken}", flush=True)
            told = True
            time.sleep(0.2)
    with lock:
        yield


def rendered_set(folder: Path, size: Rendered) -> LabelledSet:
    """Renders what is missing of the motions, and lists them as a set of the user's would be.

    Calls at the same time render once: the others wait.
    """
    with alone_in(folder):
        return _rendered(folder, size)


def _rendered(folder: Path, size: Rendered) -> LabelledSet:
    kinds = len(CLASSES)
    first = {"scored": 0, "labelled": 1_000_000, "unlabelled": 2_000_000}
    counts = {
        "scored": size.scored * kinds,
        "labelled": size.labelled * kinds,
        "unlabelled": size.unlabelled,
    }
    clips = []
    for part, count in counts.items():
        indices = range(first[part], first[part] + count)
        paths = render_motions(
            folder / part, indices, seed=0, size=size.side, seconds=size.seconds, fps=size.fps
        )
        for number, path in enumerate(paths):
            label, fold = number % kinds, HELD_OUT
            if part == "labelled":
                fold = 1 + number // kinds % TRAINING_FOLDS
            elif part == "unlabelled":
                label = fold = UNLABELLED
            clips.append(Clip(str(path.relative_to(folder)), label, fold))
    with (folder / "groups.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "fold"])
        rows.writerows([clip.path, clip.label, clip.fold] for clip in clips)
    # 8 frames over the 24 that there are, in both runs
    return LabelledSet(MOTIONS, tuple(clips), folder, (HELD_OUT,), {"data.stride": 3})


def with_few_labels(
    clips: tuple[Clip, ...], fold: int, labels: float | int | None, seed: int
) -> tuple[Clip, ...]:
    """The clips where only some of those to train on have a label; the others keep their pixels.

    Args:
        clips: of a set.
        fold: that is scored, whose labels stay.
        labels: share of each class below 1, or how many of each; None: all.
        seed: which ones.

    Raises:
        ValueError: a class has fewer.
    """
    if labels is None:
        return clips
    by_class: dict[int, list[int]] = {}
    for place, clip in enumerate(clips):
        if clip.label >= 0 and clip.fold != fold:
            by_class.setdefault(clip.label, []).append(place)
    kept: set[int] = set()
    for label, places in sorted(by_class.items()):
        count = labels if isinstance(labels, int) else max(1, round(labels * len(places)))
        if count > len(places):
            raise ValueError(f"{count} labels of class {label}, which has {len(places)} clips")
        rng = Randomness(seed, label)
        for i in range(int(count)):
            other = i + rng.below(len(places) - i)
            places[i], places[other] = places[other], places[i]
        kept.update(places[: int(count)])
    return tuple(
        clip if clip.label < 0 or clip.fold == fold or place in kept
        else replace(clip, label=UNLABELLED)
        for place, clip in enumerate(clips)
    )  # fmt: skip
