"""A merged label space as files: lists of several sets in, one training and validation list out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from videomae_fast.data.errors import ListError
from videomae_fast.data.files import make_folder, write_lines
from videomae_fast.data.labels.kinetics import other_names as kinetics_other_names
from videomae_fast.data.labels.merging import LabelSource, MergedLabels, Rule, Split, merge_labels
from videomae_fast.data.labels.names import class_names
from videomae_fast.data.lists import Entry, list_line, load_list
from videomae_fast.errors import UsageError
from videomae_fast.placed_json import PlacedObject, placed_json
from videomae_fast.recipes.source import Source

TRAIN: Final = "train.csv"
VALIDATION: Final = "val.csv"
CLASSES: Final = "classes.txt"
LEFT_OUT: Final = "left_out.jsonl"
REPORT: Final = "report.json"


@dataclass(frozen=True)
class SetList:
    """A list of a set, and the names of the set's classes.

    Attributes:
        source: the list, of lines with labels.
        classes: as :func:`~videomae_fast.data.labels.names.class_names` takes it.
        split: what it is for.
    """

    source: Source
    classes: str
    split: Split


@dataclass(frozen=True)
class Built:
    """A merged label space.

    Attributes:
        merged: its lists, and what was left out.
        rows: for each set, by the file's stem or the name that stands for it, the row of the merged
            head that is each of its classes.
        entries: of the videos, by path.
    """

    merged: MergedLabels
    rows: Mapping[str, Sequence[int]]
    entries: Mapping[str, Entry]

    @property
    def unified(self) -> list[str]:
        """Sets with several classes that are one now, so that no rows make a head of their own."""
        return [name for name, rows in self.rows.items() if len(set(rows)) < len(rows)]


def build(
    lists: Sequence[SetList],
    *,
    classes: str | None = None,
    other_names: Mapping[str, str] | None = None,
    rule: Rule = "youtube",
) -> Built:
    """Merges the lists of several sets.

    Args:
        lists: of one format; of videos that are in several, the first one stays.
        classes: names that the merged classes have, and their order, as ``kinetics-710``; None
            takes all that the sets' classes have, in alphabetical order.
        other_names: names that mean another one.
        rule: what tells a video from others.

    Raises:
        UsageError: names that can't be read, lists of several formats, or two sets of one name.
        ListError: a list can't be read, a label that is none of its classes, or a name that is no
            merged class.
    """
    formats = {one.source.format for one in lists}
    if len(formats) > 1 or formats == {"pretrain"}:
        raise UsageError(
            f"lists of {' and '.join(sorted(formats))}: merge lists of one format with labels"
        )
    entries: dict[str, Entry] = {}
    names = {one.classes: class_names(one.classes) for one in lists}
    sources = [_read(one, names[one.classes], entries) for one in lists]
    other = other_names or {}
    fixed = None if classes is None else class_names(classes)
    if fixed is None:
        fixed = tuple(sorted({other.get(name, name) for each in names.values() for name in each}))
    merged = merge_labels(sources, names=fixed, other_names=other, rule=rule)
    place = {name: label for label, name in enumerate(fixed)}
    rows: dict[str, list[int]] = {}
    for called, each in names.items():
        stem = Path(called).stem if os.path.exists(called) else called
        if stem in rows:
            raise UsageError(
                f"two sets have classes of the name {stem}: rename one of the files, since the "
                "rows of their classes are written by it"
            )
        own = [name if name in place else other.get(name, name) for name in each]
        missing = [name for name in own if name not in place]
        if missing:
            raise ListError(f"{called}: {missing[0]!r} is none of the merged classes ({classes})")
        rows[stem] = [place[name] for name in own]
    return Built(merged, rows, entries)


def write(built: Built, folder: Path) -> None:
    """Writes lists, names, rows and the report; each file is whole or not there.

    ``train.csv``, ``val.csv`` (where a list was for validation), ``classes.txt``,
    ``rows-<set>.json`` (as ``convert --head-index`` takes them), ``left_out.jsonl`` (a line per
    video with the one that stays) and ``report.json``.

    Raises:
        OutputError: they can't be written.
    """
    merged = built.merged
    make_folder(folder)
    for name, videos in ((TRAIN, merged.train), (VALIDATION, merged.validation)):
        if videos:
            write_lines(folder / name, _lines(built, videos))
        else:
            (folder / name).unlink(missing_ok=True)  # of another merge
    write_lines(folder / CLASSES, (f"{name}\n" for name in merged.names))
    for stem, rows in built.rows.items():
        file = folder / f"rows-{stem}.json"
        if stem in built.unified:
            file.unlink(missing_ok=True)
        else:
            write_lines(file, [json.dumps(list(rows)) + "\n"])
    write_lines(folder / LEFT_OUT, _left_out(merged))
    write_lines(folder / REPORT, [json.dumps(summary(merged), indent=2) + "\n"])


def summary(merged: MergedLabels) -> dict[str, Any]:
    """The numbers of a report, as plain values."""
    return {
        "classes": len(merged.names),
        "train": len(merged.train),
        "validation": len(merged.validation),
        "duplicates": len(merged.duplicates),
        "leaks": len(merged.leaks),
        "conflicts": len(merged.conflicts),
        "renamed": [
            {"name": old, "means": new, "videos": count}
            for (old, new), count in sorted(merged.renamed.items())
        ],
        "taken_for_others_of_one_list": merged.within,
    }


def read_other_names(given: str) -> dict[str, str]:
    """Names that mean another one: ``kinetics``, or a JSON file ``{"name": "what it means"}``.

    Raises:
        UsageError: no such file, or something else in it.
    """
    if given == "kinetics":
        return kinetics_other_names()
    path = Path(given)
    try:
        found = placed_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path}: can't be read as JSON ({error}): give kinetics, or a file like "
            '{"hugging": "hugging (not baby)"}'
        ) from None
    like = 'be one object like {"hugging": "hugging (not baby)"}'
    if not isinstance(found, PlacedObject):
        raise UsageError(f"{path}: must {like}")
    wrong = [old for old, new in found.items() if not isinstance(new, str)]
    if wrong:
        raise UsageError(
            f"{path}:{found.lines[wrong[0]]}: {wrong[0]!r} means no text: it must {like}"
        )
    chained = [(old, new) for old, new in found.items() if new in found]
    if chained:
        old, new = chained[0]
        raise UsageError(
            f"{path}:{found.lines[old]}: {new!r} means another name and is meant itself"
        )
    return found


def _read(one: SetList, names: Sequence[str], entries: dict[str, Entry]) -> LabelSource:
    """The videos of a list with their classes' names; entries: by path, to which its are added."""
    source, videos = one.source, []
    loaded = load_list(source.path, source.format)
    for index in range(len(loaded)):
        entry = loaded[index]
        if entry.label >= len(names):
            raise ListError(
                f"{source.path}:{entry.line}: label {entry.label} is none of the {len(names)} "
                f"classes of {one.classes} (0 to {len(names) - 1})"
            )
        path = os.path.abspath(os.path.join(source.root or "", entry.path))
        entries.setdefault(path, entry)
        videos.append((path, names[entry.label]))
    return LabelSource(source.label, one.split, videos)


def _lines(built: Built, videos: Sequence[tuple[str, int]]) -> Iterator[str]:
    for path, label in videos:
        entry = built.entries[path]
        said = Entry(path, entry.start, entry.total, label, entry.line)
        yield list_line(said, path, "folder-labels" if entry.total >= 0 else "labels")


def _left_out(merged: MergedLabels) -> Iterator[str]:
    for why, pairs in (("duplicate", merged.duplicates), ("leak", merged.leaks)):
        for path, stays in pairs:
            yield json.dumps({"path": path, "why": why, "stays": stays}) + "\n"
    for video, places in merged.conflicts:
        classes = [{"path": path, "class": name} for path, name in places]
        yield json.dumps({"why": "conflict", "video": video, "classes": classes}) + "\n"
