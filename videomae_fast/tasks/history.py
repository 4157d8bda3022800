"""``validation.jsonl`` of a run: a line per validation of the steps that it has made."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

from videomae_fast.data.errors import ListError
from videomae_fast.data.files import write_lines

FILE: Final = "validation.jsonl"


class Line(Protocol):
    """What was found after a number of steps; ``best`` says which weights were the best so far."""

    @property
    def step(self) -> int: ...

    @property
    def best(self) -> str | None: ...


L = TypeVar("L", bound=Line)


class Validations(ABC, Generic[L]):
    """The lines, of frozen dataclasses; those of steps that are made again are dropped.

    Args:
        folder: of the run.

    Raises:
        ListError: a line that can't be read; names file and line.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        there = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        self.epochs = [self._read(number, line) for number, line in enumerate(there, 1)]

    @abstractmethod
    def parsed(self, said: Any) -> L:
        """A line out of its JSON; KeyError, TypeError or ValueError where it is none."""

    def before(self, step: int) -> list[L]:
        """The lines up to, and not with, this number of steps."""
        return [one for one in self.epochs if one.step < step]

    def best_until(self, step: int | None = None) -> int | None:
        """The step after which the weights were the best, until this one or of all; or None."""
        bests = [
            one.step
            for one in self.epochs
            if one.best is not None and (step is None or one.step <= step)
        ]
        return max(bests, default=None)

    def add(self, line: L) -> None:
        """Notes a validation; lines of later steps are dropped."""
        self._write([*self.before(line.step), line])

    def keep(self, wanted: Callable[[L], bool]) -> None:
        """Drops the other lines."""
        kept = [one for one in self.epochs if wanted(one)]
        if kept != self.epochs:
            self._write(kept)

    def forget(self, step: int) -> None:
        """Notes that the weights after a number of steps are not there any more."""
        self._write(
            [
                replace(one, best=None) if one.step == step else one  # type: ignore[type-var]
                for one in self.epochs
            ]
        )

    def _read(self, number: int, line: str) -> L:
        try:
            return self.parsed(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise ListError(
                f"{self.path}:{number}: found {line[:80]!r}, expected an epoch's validation as "
                "JSON; move the file away to start a new one"
            ) from error

    def _write(self, lines: list[L]) -> None:
        """The file anew, whole."""
        self.epochs = lines
        said = [json.dumps(asdict(one)) + "\n" for one in lines]  # type: ignore[call-overload]
        write_lines(self.path, said, parents=False)  # a run's folder that is gone stays so
