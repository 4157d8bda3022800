"""What a test has scored so far, so that one that was stopped goes on where it was."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.files import AppendFile, make_folder, write_lines
from videomae_fast.errors import UsageError
from videomae_fast.training.parallel.world import World

SETTINGS: Final = "test.json"
SCORES: Final = "scores"
"""The folder of what was scored so far, a file per process and start."""

_LINE: Final = re.compile(r'(\{"place": (\d{1,18}), .*), "crc32": "([0-9a-f]{8})"\}')


class ScoreJournal:
    """What the processes of a test have scored, a line each below ``OUTPUT/scores``.

    A line is an object of JSON with its place in the lists and a CRC-32, appended whole. Each start
    of a process has a file of its own, so that nothing follows a line that was cut off. What is cut
    off or damaged is no line, and is scored again; so the number of processes may change.

    All processes make it together, and the folder is one for all of them. As a context it puts what
    was noted on the disk.

    Args:
        output: folder of the test.
        world: its processes.
        made_from: gives what the scores depend on, as plain values by name: settings, digests of
            files. The main process asks it.

    Attributes:
        before: the places that were scored when the test was started.

    Raises:
        UsageError: the folder holds a test that is made from something else.
        OutputError: something there can't be written.
    """

    def __init__(
        self, output: Path, world: World, made_from: Callable[[], Mapping[str, Any]]
    ) -> None:
        self.output = output
        places: set[int] = set()
        if world.is_main:
            self._check_same(made_from())
            places = set(self._read())
        self.before: frozenset[int] = frozenset(world.from_main(places))
        folder = output / SCORES
        make_folder(folder)
        number = len(list(folder.glob(f"rank{world.rank}.*.jsonl")))
        self._file = AppendFile(folder / f"rank{world.rank}.{number}.jsonl")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._file.sync()
        self._file.close()

    def add(self, place: int, **values: Any) -> None:
        """Notes what was scored.

        Args:
            place: in the lists.
            values: plain ones by name, or arrays of floats.
        """
        plain = {
            name: _as_text(one) if isinstance(one, np.ndarray) else one
            for name, one in values.items()
        }
        said = json.dumps({"place": place, **plain})[:-1]
        self._file.write(f'{said}, "crc32": "{zlib.crc32(said.encode()):08x}"}}\n')

    def scored(self, wanted: set[int]) -> dict[int, dict[str, Any]]:
        """What all processes have noted, for the main one: all of them have left theirs.

        Args:
            wanted: the places that have to be there.

        Returns:
            The values by place; arrays as :func:`from_text` takes them.

        Raises:
            UsageError: some of them are not.
        """
        found = {place: said for place, said in self._read().items() if place in wanted}
        if len(found) < len(wanted):
            raise UsageError(
                f"{self.output / SCORES}: has not all that was scored, {len(found)} of "
                f"{len(wanted)}: all processes need one folder for --output"
            )
        return found

    def _read(self) -> dict[int, dict[str, Any]]:
        return dict(_lines(self.output / SCORES))

    def _check_same(self, made_from: Mapping[str, Any]) -> None:
        now = json.loads(json.dumps(made_from))
        file = self.output / SETTINGS
        if file.exists():
            try:
                before = json.loads(file.read_text(encoding="utf-8"))
            except ValueError:
                before = {}
            if not isinstance(before, dict):
                before = {}
            other = [key for key in now if before.get(key) != now[key]]
            if other:
                raise UsageError(
                    f"--output {self.output}: holds a test with other {', '.join(other)}: name "
                    "another folder, or remove this one"
                )
        write_lines(file, [json.dumps(now, indent=2) + "\n"])


def file_digest(path: Path) -> str:
    """SHA-256 of a list, or of a file that belongs to it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def from_text(text: str) -> NDArray[np.float64]:
    """An array of a line, float64 [N]."""
    return np.frombuffer(base64.b64decode(text, validate=True), "<f8").astype(np.float64)


def _as_text(array: NDArray[Any]) -> str:
    return base64.b64encode(array.astype("<f8").tobytes()).decode()


def _lines(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """What was scored so far: place and values; what is no whole line is left out."""
    for file in sorted(folder.glob("rank*.jsonl")):
        for line in file.read_text(encoding="utf-8", errors="replace").split("\n"):
            found = _LINE.fullmatch(line)
            if found is None or int(found[3], 16) != zlib.crc32(found[1].encode()):
                continue
            yield int(found[2]), json.loads(found[1] + "}")
