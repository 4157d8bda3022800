"""One label space, and one training and one validation list, out of several data sets.

This is how Kinetics-710 was made of Kinetics-400, 600 and 700: several names of one class are
unified first, classes of the same name are one, videos that are in several sets are taken once, and
videos of a validation set are taken out of the training set, so that nothing that is tested was
trained on. What was done is reported, video by video.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Literal

from videomae_fast.data.errors import ListError

Split = Literal["train", "validation"]

Rule = Literal["youtube", "name", "path"]
"""What tells a video from others, see :func:`video_id`."""

_YOUTUBE = re.compile(r"^([A-Za-z0-9_-]{11})(?:_\d{6}_\d{6})?$")


@dataclass(frozen=True)
class LabelSource:
    """A list of one set.

    Attributes:
        name: of the set, for messages.
        split: whether it is for training or for validation.
        videos: (path, class name) of each, in the order of the list.
    """

    name: str
    split: Split
    videos: Sequence[tuple[str, str]]


@dataclass
class MergedLabels:
    """The merged lists and what became of the videos that are not in them.

    Attributes:
        names: of the classes, by label.
        train, validation: (path, label) of each video.
        duplicates: paths that were left out because their video is in the list already, with the
            path that stays.
        conflicts: videos with different classes in several lists: id, then (path, class name) of
            each; the first stays.
        leaks: paths that were taken out of training because validation has their video, with its
            path.
        renamed: how many videos had a name that means another one, by (name, other name).
        within: how many videos were left out for another one, of another path, in the same list,
            by the set's name: the rule that tells videos apart may be wrong for it.
    """

    names: list[str]
    train: list[tuple[str, int]] = field(default_factory=list)
    validation: list[tuple[str, int]] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    conflicts: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    leaks: list[tuple[str, str]] = field(default_factory=list)
    renamed: dict[tuple[str, str], int] = field(default_factory=dict)
    within: dict[str, int] = field(default_factory=dict)

    def report(self) -> str:
        """What was done, one line each."""
        lines = [
            f"{len(self.names):,} classes, {len(self.train):,} videos for training, "
            f"{len(self.validation):,} for validation"
        ]
        labels = {label for _, label in self.train}
        empty = [name for label, name in enumerate(self.names) if label not in labels]
        if empty:
            shown = ", ".join(f'"{name}"' for name in empty[:5]) + (", ..." if empty[5:] else "")
            lines.append(f"warning: {len(empty):,} classes have no video for training: {shown}")
        for (old, new), count in sorted(self.renamed.items()):
            lines.append(f'{count:,} videos of "{old}" are "{new}"')
        if self.duplicates:
            lines.append(
                f"{len(self.duplicates):,} videos were in several lists and stay once, as "
                f"{_pair(self.duplicates)}"
            )
        if self.leaks:
            lines.append(
                f"{len(self.leaks):,} videos left training because validation has them too, as "
                f"{_pair(self.leaks)}"
            )
        for name, count in self.within.items():
            lines.append(
                f"warning: {count:,} videos of {name} alone were taken for others of that list: if "
                "they are not, say what tells videos apart (--same-video path)"
            )
        for video, places in self.conflicts:
            classes = ", ".join(f'"{name}" ({path})' for path, name in places)
            lines.append(f"{video} has different classes, the first is taken: {classes}")
        return "\n".join(lines)


def _pair(pairs: Sequence[tuple[str, str]]) -> str:
    """An example of what was taken for the same video."""
    path, stays = pairs[0]
    return f"{path} (there is {stays})"


def video_id(path: str, rule: Rule = "youtube") -> str:
    """What tells a video from others.

    Args:
        path: of the file.
        rule: youtube: its YouTube id where the name is one, as Kinetics files are called
            ``<id>_<start>_<end>.mp4`` or ``<id>.mp4``, else its path; name: its file name without
            the ending; path: its path, since sets often number the videos of each class.
    """
    if rule == "path":
        return path
    stem = PurePosixPath(path.replace("\\", "/")).stem
    if rule == "name":
        return stem
    match = _YOUTUBE.match(stem)
    return match[1] if match else path


def merge_labels(
    sources: Sequence[LabelSource],
    *,
    names: Sequence[str] | None = None,
    other_names: Mapping[str, str] | None = None,
    rule: Rule = "youtube",
) -> MergedLabels:
    """Merges lists of several sets.

    Args:
        sources: the lists; of videos that are in several, the first one stays.
        names: of the classes, by label, which a released head fixes; None takes all names that
            occur, in alphabetical order.
        other_names: names that mean another one, unified before anything else; a name that is among
            `names` is a class of its own and stays.
        rule: what tells a video from others.

    Raises:
        ListError: no list, or names that are not among `names` (each is said, with the nearest).
    """
    if not sources:
        raise ListError("there is no list to merge")
    fixed = set(names or ())
    other = {old: new for old, new in (other_names or {}).items() if old not in fixed}
    renamed: dict[tuple[str, str], int] = {}
    unified: list[tuple[LabelSource, list[tuple[str, str]]]] = []
    for source in sources:
        videos = []
        for path, name in source.videos:
            new = other.get(name, name)
            if new != name:
                renamed[name, new] = renamed.get((name, new), 0) + 1
            videos.append((path, new))
        unified.append((source, videos))
    found = sorted({name for _, videos in unified for _, name in videos})
    known = found if names is None else list(names)
    _check_names(found, known)
    merged = MergedLabels(known, renamed=renamed)
    label_of = {name: label for label, name in enumerate(known)}
    # Validation first, so that training can be asked whether it has one of its videos.
    kept: dict[str, tuple[str, str, LabelSource]] = {}
    conflicts: dict[str, list[tuple[str, str]]] = {}
    for split in ("validation", "train"):
        for source, videos in unified:
            if source.split != split:
                continue
            for path, name in videos:
                video = video_id(path, rule)
                before = kept.get(video)
                if before is None:
                    kept[video] = (path, name, source)
                    target = merged.train if split == "train" else merged.validation
                    target.append((path, label_of[name]))
                    continue
                left_out = merged.duplicates if before[2].split == split else merged.leaks
                if before[2] is source and before[0] != path:
                    merged.within[source.name] = merged.within.get(source.name, 0) + 1
                left_out.append((path, before[0]))
                if before[1] != name:
                    conflicts.setdefault(video, [before[:2]]).append((path, name))
    merged.conflicts = list(conflicts.items())
    return merged


def _check_names(found: Sequence[str], known: Sequence[str]) -> None:
    twice = sorted(name for name, count in Counter(known).items() if count > 1)
    if twice:
        raise ListError(f"classes have the same name: {', '.join(twice[:5])}")
    places = set(known)
    unknown = [name for name in found if name not in places]
    if unknown:
        told = []
        for name in unknown[:5]:
            near = get_close_matches(name, known, n=1)
            told.append(f'"{name}"' + (f' (near: "{near[0]}")' if near else ""))
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise ListError(
            f"names that are no class: {', '.join(told)}{more}; say what they mean as other names, "
            "or leave their videos out"
        )
