"""The video files of a folder and of all folders below it, in an order that is always the same."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from videomae_fast.data.errors import ListError

EXTENSIONS: Final = frozenset(
    [".mp4", ".m4v", ".mkv", ".webm", ".avi", ".mov", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts",
     ".flv", ".wmv", ".3gp", ".ogv"]
)  # fmt: skip
_PICTURES: Final = frozenset([".jpg", ".jpeg", ".png", ".bmp", ".webp"])


@dataclass(frozen=True)
class Found:
    """What is in a folder.

    Attributes:
        videos: paths below the folder, sorted folder by folder.
        left_out: how many others, by kind.
    """

    videos: list[str]
    left_out: Counter[str] = field(default_factory=Counter)


def find_video_files(folder: Path) -> Found:
    """Looks for video files by extension, also behind links to folders.

    Names that begin with a dot are left out (copies that other systems leave are among them), and
    those with a line feed, which no list can name.

    Args:
        folder: to look in, and in all folders below it.

    Returns:
        The videos, and what was left out.

    Raises:
        ListError: no such folder, one that can't be read, or no video in it.
    """
    if not folder.is_dir():
        raise ListError(f"{folder}: no such folder; name one with video files")
    left_out: Counter[str] = Counter()
    videos = list(_videos(folder, left_out))
    if not videos:
        frames = any(kind in _PICTURES for kind in left_out)
        raise ListError(
            f"{folder}: no videos in it or in the folders below; looked for files ending in "
            f"{', '.join(sorted(EXTENSIONS))}"
            + (f" and found {told(left_out)}" if left_out else "")
            + ("; a list names a folder of frames `folder start total`" if frames else "")
        )
    return Found(videos, left_out)


def told(left_out: Counter[str]) -> str:
    """The counts in words, the most frequent first."""
    return ", ".join(f"{count:,} {kind}" for kind, count in left_out.most_common())


def _videos(folder: Path, left_out: Counter[str]) -> Iterator[str]:
    # What is still to be looked at, the next one last, with the device and inode of the folders
    # that lead there: a link to one of them has no end.
    left: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while left:
        name, above = left.pop()
        path = os.path.join(folder, name)
        try:
            status = os.stat(path)
        except OSError:
            left_out["broken links"] += 1
            continue
        extension = os.path.splitext(name)[1].lower()
        if stat.S_ISDIR(status.st_mode):
            here = (status.st_dev, status.st_ino)
            if here in above:
                left_out["links to a folder above"] += 1
            else:
                inside = _names(path, left_out)
                left += ((os.path.join(name, one), (*above, here)) for one in reversed(inside))
        elif extension not in EXTENSIONS:
            left_out[extension or "files without extension"] += 1
        elif not stat.S_ISREG(status.st_mode):
            left_out["pipes and devices"] += 1
        else:
            yield name


def _names(folder: str, left_out: Counter[str]) -> list[str]:
    """What a folder holds, sorted by its bytes: in the same order whatever the language."""
    try:
        names = sorted(os.listdir(folder), key=os.fsencode)
    except OSError as error:
        raise ListError(f"{folder}: can't be read: {error.strerror or error}") from error
    kept = []
    for name in names:
        if name.startswith("."):
            left_out["hidden names"] += 1
        elif "\n" in name:
            left_out["names with a line feed"] += 1
        else:
            kept.append(name)
    return kept
