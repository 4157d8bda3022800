"""Where the videos of a list of key frames lie: files or image folders, named as the list does."""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from videomae_fast.data.boxes.second_files import second_files
from videomae_fast.data.errors import ListError
from videomae_fast.data.lists.video_files import EXTENSIONS
from videomae_fast.recipes.box_source import BoxSource

_TRIMMED = re.compile(r"(.+)_(\d+)_(\d+)")
_FOLDERS = 4096  # whose images are counted and remembered


class VideoPart(NamedTuple):
    """A file or folder, and the time of its first and after its last frame in seconds."""

    path: Path
    begin: float
    end: float


class VideoFiles:
    """The files of a list's root by the names of their videos, from one look at the folder.

    A video's name may have folders, and may or may not have the ending of its file. Of trimmed ones
    a video has several parts, and of a file per second one for each.

    Args:
        source: the list.

    Raises:
        ListError: the root can't be read.
    """

    def __init__(self, source: BoxSource) -> None:
        self.source = source
        self.root = Path() if source.root is None else source.root
        self._parts: dict[Path, dict[str, list[VideoPart]]] = {}
        self._look(self.root)

    def part(self, video: str, seconds: float) -> VideoPart | None:
        """What holds a key frame, None where nothing of the video's name is there."""
        if self.source.per_second:
            file = second_files(self.root / video).get(math.floor(seconds))
            return None if file is None else VideoPart(file, 0.0, float("inf"))
        folder = self.root / Path(video).parent
        parts = self._look(folder).get(Path(video).name, [])
        inside = [one for one in parts if one.begin <= seconds <= one.end]
        return next(iter(inside or parts), None)

    def pattern(self, video: str) -> str:
        """File name of an image of a video's folder, to be formatted with its number."""
        return self.source.name_pattern.replace("{video}", Path(video).name)

    def images(self, folder: Path, video: str) -> int:
        """How many images a folder has: up to the highest number that is there, at least 1."""
        return count_images(folder, self.pattern(video), self.source.first_frame)

    def _look(self, folder: Path) -> dict[str, list[VideoPart]]:
        if folder not in self._parts:
            found: dict[str, list[VideoPart]] = defaultdict(list)
            try:
                with os.scandir(folder) as inside:
                    files = sorted((one.name, one.is_dir()) for one in inside)
            except OSError as error:
                if folder == self.root:
                    raise ListError(
                        f"{self.source.path}: its root {folder} can't be read ({error.strerror}): "
                        "name the folder of the videos with root=FOLDER"
                    ) from None
                files = []
            for name, is_folder in files:
                for known, part in self._named(folder / name, is_folder):
                    found[known].append(part)
            self._parts[folder] = dict(found)
        return self._parts[folder]

    def _named(self, path: Path, folder: bool) -> list[tuple[str, VideoPart]]:
        """The names that a file may go by, and what it holds of the video.

        Only files of videos go by their names without an ending: a list may lie beside them.
        """
        name = path.name if folder else path.stem
        known = folder or path.suffix.lower() in EXTENSIONS
        if self.source.trimmed:
            match = _TRIMMED.fullmatch(name)
            if match is None or not known:
                return []
            return [(match[1], VideoPart(path, float(match[2]), float(match[3])))]
        part = VideoPart(path, self.source.begin, float("inf"))
        names = dict.fromkeys((name, path.name)) if known else (path.name,)
        return [(one, part) for one in names]


@lru_cache(maxsize=_FOLDERS)
def count_images(folder: Path, pattern: str, first: int) -> int:
    """How many images a folder has: up to the highest number that is there, at least 1.

    Args:
        folder: with the images; where it can't be read, reading them says so.
        pattern: of their names.
        first: number of the first one.
    """
    before, after = re.split(r"\{[^}]*\}", pattern, maxsplit=1)
    number = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    try:
        names = os.listdir(folder)
    except OSError:
        return 1
    numbers = [int(match[1]) for match in map(number.fullmatch, names) if match is not None]
    return max(1, max(numbers, default=first) - first + 1)
