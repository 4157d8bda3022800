"""Files that could not be read: named with their reason, counted, and limited."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from videomae_fast.data.errors import MISSING, FailureShareError, ListError
from videomae_fast.data.files import AppendFile, keep_steps_before, make_folder
from videomae_fast.data.lists.sources import where_paths_start

_TOP_REASONS: Final = 5


@dataclass(frozen=True)
class Failure:
    """One draw that gave no clip.

    Attributes:
        path: the file or frame folder, or a stored clip's source.
        list_path: the list that names it, or the store.
        line: of the list, from 1; 0 for a store.
        reason: for a reader.
        step: of the run, in optimizer steps.
        epoch: from 0.
        position: place in the epoch's order.
        trace: the traceback of an error that no decoder foresaw, else empty.
        row: of a store.
    """

    path: str
    list_path: str
    line: int
    reason: str
    step: int
    epoch: int
    position: int
    trace: str = ""
    row: int | None = None

    @property
    def place(self) -> str:
        """Where it is named: line of a list, or row of a store."""
        if self.row is not None:
            return f"{self.list_path} row {self.row}"
        return f"{self.list_path}:{self.line}"

    def to_json(self) -> str:
        unused = {"trace": "", "row": None}
        about = {k: v for k, v in asdict(self).items() if k not in unused or v != unused[k]}
        return json.dumps(about, ensure_ascii=False)

    def __str__(self) -> str:
        return f"{self.path} ({self.place}): {self.reason}"


class FailureReport:
    """The run's failed draws as JSON lines in ``<folder>/bad_files.rank<rank>.jsonl``.

    Lines are appended at once. On a resume at ``start_step``, lines of steps from
    there on are dropped, since those draws are made again; earlier ones are kept and counted.
    When a run resumes with fewer ranks, the lines of a rank that no longer exists are kept up
    in its own file by rank ``old rank % world``.

    Damage behind the lines that are kept is dropped as well; ``aside`` names the reports with
    such, as they were.

    Args:
        folder: made if missing.
        rank: of this process.
        world: how many processes there are.
        start_step: first step of this start.
        draws_before: draws (videos) that this rank answers for before it.

    Raises:
        ListError: damage among the lines that are kept.
        OutputError: a report can't be written.
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
        make_folder(folder)
        self.path = folder / f"bad_files.rank{rank}.jsonl"
        self.draws = draws_before
        self.failed = 0
        self._files: set[str] = set()
        self._reasons: Counter[str] = Counter()
        self._first: Failure | None = None
        self._first_unforeseen: Failure | None = None
        self._missing: set[str] = set()
        self.aside: list[Path] = []
        for old in sorted(folder.glob("bad_files.rank*.jsonl")):
            number = old.name.removeprefix("bad_files.rank").removesuffix(".jsonl")
            if number.isdigit() and int(number) % world == rank:
                kept = keep_steps_before(old, start_step, lambda line: _failure(line).step)
                self._count(map(_failure, kept.lines))
                self.aside += [] if kept.aside is None else [kept.aside]
        self.file = AppendFile(self.path)

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
        self.file.write("".join(each.to_json() + "\n" for each in failures))

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
        self.file.close()

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
    """The failures in a report.

    Args:
        path: ``bad_files.rank0.jsonl`` of a run, say.

    Returns:
        The failures in the order of the file, without a last line that is cut off.

    Raises:
        ListError: a line that is no failure; names ``file:line``.
    """
    lines = Path(path).read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    failures = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last line end is cut off
        try:
            failures.append(_failure(line))
        except (ValueError, TypeError, RecursionError) as error:
            raise ListError(
                f"{path}:{number}: found {line[:80]!r}; expected a failed draw as JSON "
                "(move the report away to start a new one)"
            ) from error
    return failures


def _failure(line: str) -> Failure:
    failure = Failure(**json.loads(line))
    if type(failure.step) is not int:
        raise TypeError(f"step is {failure.step!r}")
    return failure
