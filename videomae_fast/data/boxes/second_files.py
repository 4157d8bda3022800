"""Videos as folders of one file for each second: the files around a key frame, read as one video.

Source: the clips of the official AVA code (``movie/902.mp4``), whose first frame of a second is the
key frame.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path

import numpy as np

from videomae_fast.data.decoders.base import Frames, ReaderBase, VideoReader, check_ids
from videomae_fast.data.errors import DecodeError
from videomae_fast.data.lists.video_files import EXTENSIONS

_FOLDERS = 4096  # that are remembered


class SecondFiles(ReaderBase):
    """The frames around a time, of the files of the seconds that they lie in.

    Where the first or the last of a folder's files is reached, the video ends.

    Args:
        folder: of the video.
        seconds: the time of the key frame.
        reach: frames that are wanted before, and from the key frame on.
        open_part: opens a file, or a folder of images.

    Attributes:
        key: number of the key frame.

    Raises:
        DecodeError: a file that is needed is missing between others, or can't be read.
    """

    def __init__(
        self, folder: Path, seconds: float, reach: int, open_part: Callable[[Path], VideoReader]
    ) -> None:
        self._files, self._open = second_files(folder), open_part
        self._stack = ExitStack()
        middle = math.floor(seconds)
        try:
            video = self._part(middle)
            self._parts = [video]
            count = video.frame_count
            self.key = min(count - 1, math.floor((seconds - middle) * count + 0.5))
            after, second = count - self.key, middle
            while after < reach and self._goes_on(second := second + 1, 1):
                self._parts.append(self._part(second))
                after += self._parts[-1].frame_count
            second = middle
            while self.key < reach and self._goes_on(second := second - 1, -1):
                self._parts.insert(0, self._part(second))
                self.key += self._parts[0].frame_count
        except BaseException:
            self.close()
            raise
        ends = np.cumsum([part.frame_count for part in self._parts])
        self._ends, self._count = ends, int(ends[-1])

    @property
    def frame_count(self) -> int:
        return self._count

    @property
    def numbered_by_decoding(self) -> str | None:
        return next((why for part in self._parts if (why := part.numbered_by_decoding)), None)

    def read(self, ids: Sequence[int]) -> Frames:
        numbers = np.array(check_ids(ids, self._count))
        which = np.searchsorted(self._ends, numbers, side="right")
        found: list[tuple[np.ndarray, Frames]] = []
        for index in np.unique(which):
            part = self._parts[index]
            mine = which == index
            begin = self._ends[index] - part.frame_count
            found.append((mine, part.read((numbers[mine] - begin).tolist())))
        sizes = {frames.shape[1:3] for _, frames in found}
        if len(sizes) > 1:
            told = ", ".join(f"{width}x{height}" for height, width in sorted(sizes))
            raise DecodeError(f"the seconds around it are of different sizes ({told})")
        out = np.empty((len(numbers), *found[0][1].shape[1:]), dtype=np.uint8)
        for mine, frames in found:
            out[mine] = frames
        return out

    def close(self) -> None:
        self._stack.close()

    def _goes_on(self, second: int, step: int) -> bool:
        """Whether there is a second, False behind the ends of the video."""
        if second in self._files:
            return True
        if any((other - second) * step > 0 for other in self._files):
            raise DecodeError(f"second {second}, which its clip needs, is missing between others")
        return False

    def _part(self, second: int) -> VideoReader:
        path = self._files.get(second)
        if path is None:
            raise DecodeError("no such file")
        try:
            return self._stack.enter_context(self._open(path))
        except DecodeError as error:
            raise DecodeError(f"{path.name}: {error.reason}", error.trace) from error


@lru_cache(maxsize=_FOLDERS)
def second_files(folder: Path) -> Mapping[int, Path]:
    """The files of a video by their second: ``902.mp4`` or ``0902.mp4``, or folders so named.

    Args:
        folder: of the video; one that can't be read has none.
    """
    found: dict[int, Path] = {}
    try:
        with os.scandir(folder) as inside:
            for one in sorted(inside, key=lambda one: one.name):
                path = Path(one.path)
                name = one.name if one.is_dir() else path.stem
                known = one.is_dir() or path.suffix.lower() in EXTENSIONS
                if known and name.isascii() and name.isdigit() and len(name) < 10:
                    found.setdefault(int(name), path)
    except OSError:
        return {}
    return found
