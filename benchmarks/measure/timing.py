"""Interleaved timing of training steps and of calls on a device; what is said about times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch

from benchmarks.contenders.base import Contender

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
        """Of times in seconds, in any order.

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
        """Seconds from now on; may be less than 0."""
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
SHORT_ROUNDS, SHORT = 5, 1.0  # rounds that are always made, and the seconds that these may take


def synchronize(device: torch.device) -> None:
    """Waits until a GPU has done all that was launched; nothing else has to be waited for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed_step(contender: Contender, *, phases: bool) -> dict[str, float]:
    """Times one training step.

    Args:
        contender: whose step.
        phases: time its phases, too. On a GPU they would need a synchronisation between them,
            which changes what is measured.

    Returns:
        Seconds: "total", and each of :data:`PHASES` where asked for.
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
    """Times training steps in turns, every other round in reverse order.

    Args:
        contenders: whose steps.
        repeats: rounds, of one step each.
        warmup: steps of each before the first round.
        budget: no round is begun that it would not see the end of, but for the first and for
            :data:`SHORT_ROUNDS` where they are short: one time alone is no figure.
        tell: takes a line of progress.
        keep: takes what was timed so far after each round.

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
        short = i_round < SHORT_ROUNDS and longest < SHORT  # of what took a minute to compile
        if i_round and budget.left() < longest and not short:
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


# A GPU sleeps for so many of its clock ticks, about two milliseconds, before a timed call.
LEAD = 4_000_000
# Several times the 50 or 60 MB of an H100's or H200's L2.
SCRATCH = 2**28


def times(
    run: Callable[[], Any], device: torch.device, repeats: int, warmup: int, *, cold: bool = False
) -> list[float]:
    """Times a call again and again: by events on a GPU, so that launching is not counted.

    Events mark when the GPU comes by, so a GPU that has nothing to do waits for the host between
    them. It is kept busy before each call until the host has launched all of it.

    Args:
        run: the call.
        device: that it works on.
        repeats: times that are taken.
        warmup: calls before these.
        cold: on a GPU, nothing of the inputs is left in its L2 from the call before.

    Returns:
        Seconds of each call.
    """
    for _ in range(warmup):
        run()
    synchronize(device)
    if device.type != "cuda":
        found = []
        for _ in range(repeats):
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
        return found
    event = partial(torch.cuda.Event, enable_timing=True)
    marks = [(event(), event()) for _ in range(repeats)]
    scratch = torch.empty(SCRATCH if cold else 0, dtype=torch.uint8, device=device)
    for before, after in marks:
        torch.cuda._sleep(LEAD)  # type: ignore[no-untyped-call]
        scratch.zero_()
        before.record()
        run()
        after.record()
    synchronize(device)
    return [before.elapsed_time(after) / 1e3 for before, after in marks]


def times_in_turns(
    runs: Mapping[str, Callable[[], Any]], device: torch.device, repeats: int, warmup: int
) -> dict[str, list[float]]:
    """:func:`times` of each run, cold, one call a round; every other round in reverse order.

    Args:
        runs: calls by name.
        device: that they work on.
        repeats: rounds.
        warmup: calls of each before its first one that is timed.

    Returns:
        Seconds of each call by name, in the order of the rounds.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for i_round in range(repeats):
        for name in list(runs) if i_round % 2 == 0 else reversed(list(runs)):
            before = warmup if i_round == 0 else 0
            taken[name] += times(runs[name], device, 1, before, cold=True)
    return taken


def copy_bandwidth(device: torch.device, size: int, repeats: int, warmup: int) -> dict[str, Any]:
    """TB/s of a device-to-device copy of `size` bytes: read plus written."""
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = times(lambda: target.copy_(source), device, repeats, warmup)
    return {"bytes": size, **rated(seconds, 2 * size, "TB/s")}


def rated(seconds: list[float], work: float, unit: str) -> dict[str, Any]:
    """Times with the rate at their median: work per second, in 1e12 of the unit."""
    summary = Summary.of(seconds)
    return {"seconds": asdict(summary), unit: work / summary.median / 1e12}
