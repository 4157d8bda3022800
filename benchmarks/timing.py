"""Interleaved timing of training steps, and what is said about a sample of times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from benchmarks.contenders import Contender

PHASES = ("forward", "backward", "update")


@dataclass(frozen=True)
class Summary:
    """Seconds: median, quartiles, least; and how many times were taken."""

    median: float
    q1: float
    q3: float
    least: float
    count: int

    @staticmethod
    def of(seconds: Sequence[float]) -> Summary:
        """
        Raises:
            ValueError: no times.
        """
        if not seconds:
            raise ValueError("no times were taken")
        if len(seconds) == 1:
            q1 = q3 = seconds[0]
        else:
            q1, _, q3 = statistics.quantiles(seconds, n=4, method="inclusive")
        return Summary(statistics.median(seconds), q1, q3, min(seconds), len(seconds))


@dataclass(frozen=True)
class Budget:
    """Seconds that a command may take; None: as many as it needs."""

    seconds: float | None = None
    clock: Callable[[], float] = time.monotonic
    start: float = field(default=-1.0)

    def __post_init__(self) -> None:
        if self.start < 0:
            object.__setattr__(self, "start", self.clock())

    def left(self) -> float:
        return float("inf") if self.seconds is None else self.start + self.seconds - self.clock()

    def share(self, parts: int) -> Budget:
        """What each of so many parts may take of what is left, from now on."""
        if self.seconds is None:
            return self
        return Budget(max(0.0, self.left() / parts), self.clock)

    def told(self) -> str:
        """For progress: ", 83 s left", or nothing."""
        return "" if self.seconds is None else f", {max(0.0, self.left()):.0f} s left"


NO_LIMIT = Budget()


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed_step(contender: Contender, *, phases: bool) -> dict[str, float]:
    """Seconds of one training step: "total", and its phases where asked.

    On a GPU, phases would need a synchronisation between them, which changes what is measured.
    """
    synchronize(contender.device)
    start = time.perf_counter()
    loss = contender.forward()
    after_forward = time.perf_counter()
    contender.backward(loss)
    after_backward = time.perf_counter()
    contender.update()
    synchronize(contender.device)
    end = time.perf_counter()
    found = {"total": end - start}
    if phases:
        parts = (after_forward - start, after_backward - after_forward, end - after_backward)
        found.update(zip(PHASES, parts, strict=True))
    return found


def interleaved(
    contenders: Sequence[Contender],
    repeats: int,
    *,
    warmup: int = 1,
    budget: Budget = NO_LIMIT,
    tell: Callable[[str], None] = print,
    keep: Callable[[list[dict[str, list[float]]]], None] = lambda _: None,
) -> list[dict[str, list[float]]]:
    """Times each contender `repeats` times in turns, every other round in reverse order.

    No round is begun that `budget` would not see the end of, but for the first. `keep` takes what
    was timed so far after each round.

    Returns:
        For each contender the seconds in the order they were taken, by phase and in total.
    """
    for contender in contenders:
        for _ in range(warmup):
            timed_step(contender, phases=False)
    phases = all(contender.device.type == "cpu" for contender in contenders)
    taken: list[dict[str, list[float]]] = [{} for _ in contenders]
    longest = 0.0
    for i_round in range(repeats):
        if i_round and budget.left() < longest:
            tell(f"{i_round} of {repeats} rounds: the time is up")
            break
        start = budget.clock()
        order = list(range(len(contenders)))
        for i in order if i_round % 2 == 0 else reversed(order):
            for name, seconds in timed_step(contenders[i], phases=phases).items():
                taken[i].setdefault(name, []).append(seconds)
            if contenders[i].device.type == "cuda":  # 4 GB of ViT-g that the next one needs
                contenders[i].optimizer.zero_grad()
        longest = max(longest, budget.clock() - start)
        last = ", ".join(
            f"{c.name} {c.masking} {t['total'][-1]:.3f} s"
            for c, t in zip(contenders, taken, strict=True)
        )
        tell(f"round {i_round + 1} of {repeats}{budget.told()}: {last}")
        keep(taken)
    return taken
