"""How much of a run's time went into steps that count, over all its starts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

from videomae_fast.data.files import write_lines

CAUSES: Final = ("start", "data", "checkpoint", "evaluation")
"""What time is lost to beside steps that were made again: until the first step is done (reading
lists and weights, compiling); waiting for data; saving; validating."""


class Goodput:
    """``goodput.json``: of the main process, written anew at each look.

    Its ``goodput`` is the steps that are done times the median step's time, over the time since the
    run's first start, in which nothing may have run at all. ``spent`` has seconds by cause, and
    ``redone`` counts steps that were made more than once; a file that can't be read is begun anew.

    Args:
        path: of the file.
        start: steps done.
        began: when this start did, as `clock` tells it.
        clock: seconds.
    """

    def __init__(
        self, path: Path, start: int, began: float, clock: Callable[[], float] = time.time
    ) -> None:
        self.path, self._clock = path, clock
        before = _read(path)
        self.first_start = min(before.get("first_start", began), began)
        self.starts = before.get("starts", 0) + 1
        self.furthest = max(before.get("furthest", 0), start)
        self.redone = before.get("redone", 0) + self.furthest - start
        spent = before.get("spent", {})
        self.spent = {cause: float(spent.get(cause, 0.0)) for cause in CAUSES}
        self._earlier = before.get("step_seconds")
        self._steps: list[float] = []
        self._done = start
        self._began: float | None = began

    def spend(self, cause: str, seconds: float) -> None:
        """Counts time that went into something else than steps."""
        self.spent[cause] += seconds

    def stepped(self) -> None:
        """Called after each step: the first one of a start ends what belongs to the start."""
        if self._began is not None:
            self.spend("start", self._clock() - self._began)
            self._began = None

    def look(self, done: int, step_seconds: float) -> float:
        """Writes the file.

        Args:
            done: steps of the run.
            step_seconds: of one step, waiting included, since the last look.

        Returns:
            The goodput, between 0 and 1.
        """
        self._steps.append(step_seconds)
        self._done = done
        self.furthest = max(self.furthest, done)
        return self.write()

    def write(self) -> float:
        """Writes the file as of the last look, and as of now; the goodput. Nothing before it."""
        if not self._steps:
            return 0.0
        typical, done = median(self._steps), self._done
        if len(self._steps) == 1 and self._earlier is not None:
            typical = float(self._earlier)  # the first look has the warm-up in it
        wall = max(self._clock() - self.first_start, 1e-9)
        found: float = min(1.0, done * typical / wall)
        said = {
            "goodput": found,
            "steps": done,
            "step_seconds": typical,
            "wall_seconds": wall,
            "first_start": self.first_start,
            "starts": self.starts,
            "furthest": self.furthest,
            "redone": self.redone,
            "spent": self.spent,
        }
        write_lines(self.path, [json.dumps(said, indent=1) + "\n"])
        return found


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        numbers = ("first_start", "starts", "furthest", "redone", "step_seconds")
        good = all(isinstance(found[name], (int, float)) for name in numbers)
        return found if good and isinstance(found["spent"], dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
