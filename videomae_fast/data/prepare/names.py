"""Names of new files: the tree of the sources, without collisions."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import PurePosixPath


class Names:
    """Gives each source a relative path of its own, ending in ``.mp4``.

    The path is that of the list, so the tree is kept: ``train/a/1.mp4`` stays, an absolute
    ``/data/1.mp4`` becomes ``data/1.mp4``, ``1.avi`` becomes ``1.avi.mp4``. Where two would be the
    same (also but for case, for the sake of other file systems), the later one becomes
    ``1~2.mp4``. taken: names that are given away already.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = {name.casefold() for name in taken}

    def name(self, path: str) -> str:
        """A new name for the source that the list calls ``path``."""
        path = os.path.normpath(path)
        if path.startswith(".."):  # must not lead out of the new tree
            path = os.path.abspath(path)
        wished = PurePosixPath(path.lstrip("/"))
        if wished.suffix != ".mp4":
            wished = wished.with_name(wished.name + ".mp4")
        name, number = str(wished), 1
        while name.casefold() in self._taken:
            number += 1
            name = str(wished.with_name(f"{wished.stem}~{number}.mp4"))
        self._taken.add(name.casefold())
        return name
