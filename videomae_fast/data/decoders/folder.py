"""Videos as folders of images, numbered by a file name pattern."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from videomae_fast.data.decoders.base import Frames, ReaderBase, check_ids
from videomae_fast.data.decoders.pictures import read_picture
from videomae_fast.data.errors import DecodeError


class FolderReader(ReaderBase):
    """Frames from the images of a folder (JPEG, PNG, ...), named by their numbers.

    An image is looked for only when it is read, as
    :func:`~videomae_fast.data.decoders.pictures.read_picture` does.

    Args:
        folder: with the images.
        start: number of the first one.
        total: how many there are, from the list.
        name_pattern: file name of an image, formatted with its number.

    Raises:
        DecodeError: the folder is missing, or ``total`` is below 1.
    """

    def __init__(
        self, folder: Path, start: int, total: int, name_pattern: str = "img_{:05}.jpg"
    ) -> None:
        if not folder.is_dir():
            raise DecodeError("is a file, not a folder" if folder.exists() else "no such folder")
        if total < 1:
            raise DecodeError("no frames")
        self._folder = folder
        self._start = start
        self._total = total
        self._pattern = name_pattern

    @property
    def frame_count(self) -> int:
        return self._total

    def read(self, ids: Sequence[int]) -> Frames:
        numbers = check_ids(ids, self._total)
        images = {number: self._image(number) for number in sorted(set(numbers))}
        shapes = {image.shape for image in images.values()}
        if len(shapes) > 1:
            sizes = ", ".join(f"{width}x{height}" for height, width, _ in sorted(shapes))
            raise DecodeError(f"images of different sizes ({sizes})")
        return np.stack([images[number] for number in numbers])

    def _image(self, number: int) -> Frames:
        name = self._pattern.format(self._start + number)
        try:
            return read_picture(self._folder / name)
        except DecodeError as error:
            raise DecodeError(f"image {name} {error.reason}") from error
