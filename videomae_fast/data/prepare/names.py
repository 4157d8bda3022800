"""Names of new files: the tree of the sources, without collisions."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Final

SUFFIX: Final = ".mp4"
# In bytes, on usual file systems: of one name, and of a path below the output folder
_LONGEST: Final = 255
_LONGEST_PATH: Final = 3000


class Names:
    """Gives each source a relative path of its own, ending in ``.mp4``.

    The path is that of the list, so the tree is kept: ``train/a/1.mp4`` stays, an absolute
    ``/data/1.mp4`` becomes ``data/1.mp4``, ``1.avi`` becomes ``1.avi.mp4``. Where two would be the
    same (also but for case, for the sake of other file systems), or one a folder of the other, the
    later one becomes ``1~2.mp4``; what would be too long for a file system is shortened. taken:
    names that are given away already; suffix: another ending than ``.mp4``.
    """

    def __init__(self, taken: Iterable[str] = (), suffix: str = SUFFIX) -> None:
        self._suffix = suffix
        self._files: set[str] = set()
        self._folders: set[str] = set()
        for name in taken:
            self._take(PurePosixPath(name))

    def name(self, path: str) -> str:
        """A new name for the source that the list calls ``path``, whatever that is."""
        path = os.path.normpath(path)
        if path.startswith(".."):  # must not lead out of the new tree
            path = os.path.abspath(path)
        if len(os.fsencode(path)) > _LONGEST_PATH:
            path = hashlib.sha256(os.fsencode(path)).hexdigest()
        # "." and "/" have no name: they are folders and no videos, but that shows later
        *folders, last = PurePosixPath(path.lstrip("/")).parts or ("folder",)
        new = PurePosixPath()
        for folder in folders:
            new = _free(new, folder, "", self._is_file)
        new = _free(new, last.removesuffix(self._suffix), self._suffix, self._is_taken)
        self._take(new)
        return str(new)

    def _is_file(self, name: str) -> bool:
        return name in self._files

    def _is_taken(self, name: str) -> bool:
        return name in self._files or name in self._folders

    def _take(self, name: PurePosixPath) -> None:
        self._files.add(str(name).casefold())
        self._folders.update(str(folder).casefold() for folder in list(name.parents)[:-1])


def _free(
    parent: PurePosixPath, stem: str, suffix: str, taken: Callable[[str], bool]
) -> PurePosixPath:
    """The first of ``stem``, ``stem~2``, ... in ``parent`` that is not taken."""
    number, ending = 1, suffix
    while True:
        name = parent / (_shortened(stem, len(ending)) + ending)
        if not taken(str(name).casefold()):
            return name
        number += 1
        ending = f"~{number}{suffix}"


def _shortened(stem: str, ending: int) -> str:
    """The stem, cut at its end where it would be too long with an ending of so many bytes."""
    raw = os.fsencode(stem)
    most = _LONGEST - ending
    return stem if len(raw) <= most else os.fsdecode(raw[:most])
