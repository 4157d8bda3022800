"""What a run tells: a JSON line per step, a progress line now and then, TensorBoard on request."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from videomae_fast.data.files import AppendFile, keep_steps_before
from videomae_fast.errors import UsageError, VideoMAEFastError
from videomae_fast.extras import install
from videomae_fast.progress import duration

Number = int | float | None


@dataclass(frozen=True)
class StepMetrics:
    """One step, over all processes.

    step, epoch: counted from 0; loss: mean over the tokens in the loss, None where no clip could
    be read; learning_rate; grad_norm: before clipping; failed_clips: left out, of ``clips``;
    more: the task's own numbers.
    """

    step: int
    epoch: int
    loss: float | None
    learning_rate: float
    grad_norm: float | None
    clips: int
    failed_clips: int
    more: Mapping[str, float | None] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Number]:
        return {
            "step": self.step,
            "epoch": self.epoch,
            "loss": self.loss,
            "lr": self.learning_rate,
            "grad_norm": self.grad_norm,
            "clips": self.clips,
            "failed_clips": self.failed_clips,
            **self.more,
        }


def finite_or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


class MetricsFile:
    """``metrics.jsonl``: one line per step, in order, each step once.

    Lines of ``start_step`` and later are dropped, since those steps are made again; so the file
    of a resumed run says what that of an uninterrupted one says. Damage behind the earlier lines
    is dropped as well; ``aside`` is then where the file is kept as it was.

    Raises:
        ListError: one of the earlier lines is no metrics line.
        OutputError: the file can't be written.
    """

    def __init__(self, path: Path, start_step: int) -> None:
        self.aside = keep_steps_before(path, start_step, _step_of, every_step=True).aside
        self.file = AppendFile(path)
        self._lines: list[str] = []

    def write(self, metrics: StepMetrics, **more: Number) -> None:
        self._lines.append(json.dumps({**metrics.to_dict(), **more}) + "\n")

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        self.file.write("".join(lines))

    def close(self) -> None:
        self.flush()
        self.file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl`` as dicts, in order of steps."""
    return [json.loads(line) for line in _lines(path)]


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # what follows the last end is cut
    for number, line in enumerate(lines, start=1):
        try:
            _step_of(line)
        except (ValueError, KeyError, TypeError) as error:
            raise VideoMAEFastError(
                f"{path}:{number}: found {line[:80]!r}, expected a step's metrics as JSON; move "
                "the file away to start a new one"
            ) from error
    return lines


def _step_of(line: str) -> int:
    step: int = json.loads(line)["step"]
    if type(step) is not int:
        raise TypeError(f"step is {step!r}")
    return step


class Progress:
    """Speed since the last progress line, and the line itself.

    clips_per_step: over all processes; total_steps: of the run.
    """

    def __init__(
        self,
        total_steps: int,
        epochs: int,
        clips_per_step: int,
        start_step: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.total_steps = total_steps
        self.epochs = epochs
        self.clips_per_step = clips_per_step
        self._clock = clock
        self._since = clock()
        self._from_step = start_step
        self._waited = 0.0

    def waited(self, seconds: float) -> None:
        """Time in which this process had no batch to work on."""
        self._waited += seconds

    def speed(self, done: int) -> dict[str, float]:
        """``clips_per_s`` and ``data_wait`` (share of the time) since the last call.

        done: steps done of the run.
        """
        seconds = max(self._clock() - self._since, 1e-9)
        steps = done - self._from_step
        out = {
            "clips_per_s": steps * self.clips_per_step / seconds,
            "data_wait": min(1.0, self._waited / seconds),
        }
        self.skip(done)
        return out

    def shares(self, speed: Mapping[str, float], parts: Mapping[str, float]) -> dict[str, float]:
        """What parts of a step cost, and their shares of it: ``NAME_ms`` and ``NAME_share``.

        Args:
            speed: of these steps.
            parts: milliseconds of a step by name.
        """
        per_second = speed["clips_per_s"] / self.clips_per_step
        found: dict[str, float] = {}
        for name, ms in parts.items():
            found |= {f"{name}_ms": ms, f"{name}_share": min(1.0, ms * per_second / 1000)}
        return found

    def skip(self, done: int) -> None:
        """Leaves the time since the last call out: it went into something else."""
        self._since, self._from_step, self._waited = self._clock(), done, 0.0

    def line(self, metrics: StepMetrics, speed: Mapping[str, float], failed_videos: int) -> str:
        """A line for people: of the last step made, with the speed and what is left."""
        left = (self.total_steps - metrics.step - 1) * self.clips_per_step
        eta = duration(left / speed["clips_per_s"]) if speed["clips_per_s"] else "?"
        parts = "".join(
            f"{name} {speed[f'{name}_ms']:.3g} ms ({speed[f'{name}_share']:.0%})  "
            for name in (key.removesuffix("_ms") for key in speed if key.endswith("_ms"))
        )
        parts += "".join(
            f"{shown} {speed[name]:.0%}  "
            for name, shown in (("mfu", "MFU"), ("hfu", "HFU"), ("goodput", "goodput"))
            if name in speed
        )
        return (
            f"step {metrics.step + 1}/{self.total_steps}  "
            f"epoch {metrics.epoch + 1}/{self.epochs}  "
            f"loss {_shown(metrics.loss, '.4f')}  lr {metrics.learning_rate:.2e}  "
            f"grad norm {_shown(metrics.grad_norm, '.3g')}  {speed['clips_per_s']:.1f} clips/s  "
            f"data wait {speed['data_wait']:.0%}  {parts}failed videos {failed_videos}  ETA {eta}"
        )


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


class TensorBoard:
    """Scalars of each step in a TensorBoard folder; steps made again replace the earlier ones.

    prefix: of their names, the task's.

    Raises:
        UsageError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, start_step: int, prefix: str) -> None:
        self._prefix = prefix
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError(
                f"tensorboard was asked for and is not installed: {install('tensorboard')}, or "
                f"leave it out ({error})"
            ) from None
        self._writer: Any = SummaryWriter(str(folder), purge_step=start_step)

    def write(self, metrics: StepMetrics, **more: Number) -> None:
        for name, value in {**metrics.to_dict(), **more}.items():
            if value is not None and name != "step":
                self._writer.add_scalar(f"{self._prefix}/{name}", value, metrics.step)

    def write_numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers that belong to a step, by name."""
        for name, value in numbers.items():
            self._writer.add_scalar(f"{self._prefix}/{name}", value, step)

    def close(self) -> None:
        self._writer.close()
