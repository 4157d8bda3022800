"""Files that could not be read: named with their reason, counted, and limited."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, TextIO

from videomae_fast.data.errors import MISSING, FailureShareError, ListError
from videomae_fast.data.sources import where_paths_start

_TOP_REASONS: Final = 5


@dataclass(frozen=True)
class Failure:
    """One draw that gave no clip.

    path: the file or frame folder; list_path, line: where a list names it (line from 1);
    reason: for a reader; step, epoch, position: the draw; trace: the traceback of an error that no
    decoder foresaw, else empty.
    """

    path: str
    list_path: str
    line: int
    reason: str
    step: int
    epoch: int
    position: int
    trace: str = ""

    def to_json(self) -> str:
        about = {name: value for name, value in asdict(self).items() if name != "trace" or value}
        return json.dumps(about, ensure_ascii=False)

    def __str__(self) -> str:
        return f"{self.path} ({self.list_path}:{self.line}): {self.reason}"


class FailureReport:
    """The run's failed draws as JSON lines in ``<folder>/bad_files.rank<rank>.jsonl``.

    Lines are appended and flushed at once. On a resume at ``start_step``, lines of steps from
    there on are dropped, since those draws are made again; earlier ones are kept and counted.
    When a run resumes with fewer ranks, the lines of a rank that no longer exists are kept up
    in its own file by rank ``old rank % world``.

    folder: made if missing; rank, world: this process and how many there are; start_step: first
    step of this start; draws_before: draws (videos) that this rank answers for before it.

    Raises :class:`ListError` for a report of an earlier start that is not JSON lines (a last
    line that was cut off by a kill is dropped).
    """

    def __init__(
        self,
        folder: str | Path,
        rank: int = 0,
        *,
        world: int = 1,
        start_step: int = 0,
        draws_before: int = 0,
    ) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"bad_files.rank{rank}.jsonl"
        self.draws = draws_before
        self.failed = 0
        self._files: set[str] = set()
        self._reasons: Counter[str] = Counter()
        self._first: Failure | None = None
        self._first_unforeseen: Failure | None = None
        self._missing: set[str] = set()
        for old in sorted(folder.glob("bad_files.rank*.jsonl")):
            number = old.name.removeprefix("bad_files.rank").removesuffix(".jsonl")
            if number.isdigit() and int(number) % world == rank:
                self._count(_keep_before(old, start_step))
        self._file: TextIO = self.path.open("a", encoding="utf-8", errors="surrogateescape")

    @property
    def distinct(self) -> int:
        """How many different files failed."""
        return len(self._files)

    @property
    def share(self) -> float:
        """Failed draws over all draws; 0 before the first draw."""
        return self.failed / self.draws if self.draws else 0.0

    def add(self, failures: Iterable[Failure], draws: int) -> None:
        """Records the failures among ``draws`` draws (videos), and writes them out."""
        failures = list(failures)
        self.draws += draws
        self._count(failures)
        for failure in failures:
            self._file.write(failure.to_json() + "\n")
        if failures:
            self._file.flush()

    def check(
        self, max_share: float, *, failed: int | None = None, draws: int | None = None
    ) -> None:
        """Raises :class:`FailureShareError` when more than ``max_share`` of the draws failed.

        ``failed`` and ``draws`` replace this rank's counts by those of all ranks.
        """
        failed = self.failed if failed is None else failed
        draws = self.draws if draws is None else draws
        if not draws or failed <= max_share * draws:
            return
        reasons = "; ".join(
            f"{count} x {reason}" for reason, count in self._reasons.most_common(_TOP_REASONS)
        )
        raise FailureShareError(
            f"{failed} of {draws} draws ({failed / draws:.2%}, {self.distinct} different files "
            f"on this rank) could not be read, more than the {max_share:.2%} allowed; "
            f"see {self.path}. Most frequent: {reasons or 'on other ranks'}. {self._clues()}"
            "Mend the files or take them out of the list, or allow a larger share"
        )

    def _clues(self) -> str:
        """Sentences on what the failures have in common."""
        clues = "" if self._first is None else f"The first: {self._first}. "
        if self._files and self._files == self._missing:
            clues += f"All of them are missing. {where_paths_start(min(self._files))}. "
        if self._first_unforeseen is not None:
            clues += (
                f"No decoder foresaw this: {self._first_unforeseen} (its traceback is in the "
                "report); where it has nothing to do with the file, please report it. "
            )
        return clues

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> FailureReport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _count(self, failures: Iterable[Failure]) -> None:
        for failure in failures:
            self.failed += 1
            self._files.add(failure.path)
            self._first = self._first or failure
            if failure.trace:
                self._first_unforeseen = self._first_unforeseen or failure
            if failure.reason in MISSING:
                self._missing.add(failure.path)
            self._reasons[failure.reason] += 1


def read_report(path: str | Path) -> list[Failure]:
    """The failures in a report, in the order of the file (without a last line that is cut off).

    Raises :class:`ListError` naming ``file:line`` for a line that is no failure.
    """
    lines = Path(path).read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    failures = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last line end is cut off
        try:
            failures.append(Failure(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ListError(
                f"{path}:{number}: found {line[:80]!r}; expected a failed draw as JSON "
                "(move the report away to start a new one)"
            ) from error
    return failures


def _keep_before(path: Path, start_step: int) -> list[Failure]:
    kept = [failure for failure in read_report(path) if failure.step < start_step]
    partial = path.with_suffix(".partial")
    text = "".join(failure.to_json() + "\n" for failure in kept)
    partial.write_text(text, encoding="utf-8", errors="surrogateescape")
    os.replace(partial, path)
    return kept
