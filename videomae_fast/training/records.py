"""Numbers of the steps since the last look: on the device, until they are all fetched at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from videomae_fast.training.metrics import StepMetrics, finite_or_none


@dataclass(frozen=True)
class NonFiniteStep:
    """The first step whose loss or gradient was not finite. names: this process's videos."""

    step: int
    loss: float
    grad_norm: float
    names: list[str]


class StepBuffer:
    """Collects what :meth:`TrainStep.update` returns.

    Args:
        steps_per_epoch: optimizer steps of an epoch.
        clips: per step, over all processes.
        columns: names of the numbers of a step, as :func:`~videomae_fast.training.step.columns`
            gives them; the task's own stand between ``failed_clips`` and ``grad_norm``.
    """

    def __init__(self, steps_per_epoch: int, clips: int, columns: Sequence[str]) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.clips = clips
        self.columns = columns
        self._metrics = columns[3:-2]
        self._steps: list[int] = []
        self._learning_rates: list[float] = []
        self._rows: list[Tensor] = []
        self._names: list[list[str]] = []

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, step: int, learning_rate: float, row: Tensor, names: list[str]) -> None:
        """row: fp64 [columns] on the device; names: of the videos that this process saw."""
        self._steps.append(step)
        self._learning_rates.append(learning_rate)
        self._rows.append(row)
        self._names.append(names)

    def fetch(self) -> tuple[list[StepMetrics], NonFiniteStep | None]:
        """Waits for the device, and empties the collection.

        Returns:
            The steps up to the first that was not finite, that one included, and that one. Later
            ones changed nothing.
        """
        done: list[StepMetrics] = []
        bad: NonFiniteStep | None = None
        for step, rate, names, values in self._drain():
            weight = values["loss_weight"]
            loss = values["loss_sum"] / weight if weight else None
            done.append(
                StepMetrics(
                    step=step,
                    epoch=step // self.steps_per_epoch,
                    loss=None if loss is None else finite_or_none(loss),
                    learning_rate=rate,
                    grad_norm=finite_or_none(values["grad_norm"]),
                    clips=self.clips,
                    failed_clips=int(values["failed_clips"]),
                    more={
                        name: finite_or_none(values[name] / weight) if weight else None
                        for name in self._metrics
                    },
                )
            )
            if values["non_finite"]:
                bad = NonFiniteStep(step, float("nan") if loss is None else loss,
                                    values["grad_norm"], names)  # fmt: skip
                break
        return done, bad

    def _drain(self) -> Iterator[tuple[int, float, list[str], dict[str, float]]]:
        table = torch.stack(self._rows).tolist() if self._rows else []
        columns = [dict(zip(self.columns, row, strict=True)) for row in table]
        drained = list(zip(self._steps, self._learning_rates, self._names, columns, strict=True))
        self._steps, self._learning_rates, self._rows, self._names = [], [], [], []
        return iter(drained)
