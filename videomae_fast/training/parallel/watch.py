"""Who is missing when a run stands still: each process says what it is doing, and looks at others.

A thread of each process writes every few seconds, to the store that all have in common, where the
process is. One that waits for the others for most of the time limit of their groups looks who is
silent or behind, says so, and asks all for their stacks, while everybody is still there to
answer: at the limit the wait is an error (gloo) or the end of the process (NCCL).
"""

from __future__ import annotations

import faulthandler
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from videomae_fast.progress import duration
from videomae_fast.training.parallel.collectives import pending

_BEATS: Final = 20
"""Of a time limit, at least."""
_LONGEST_BEAT: Final = 5.0
_LOOK, _TELL = 0.6, 0.8  # of the limit: others are looked at twice, to see who is silent
_ASKED: Final = "stacks"
_STORE_SECONDS: Final = 10.0
_FAILURES: Final = 5


@dataclass(frozen=True)
class Whereabouts:
    """Where a process was when it last said so.

    host, pid: which it is; step: of the run; doing: in words; waits: that may be waiting for
    others; seconds: since when; beat: how often it has said so; collective: that it is in, once
    it has waited for long.
    """

    host: str
    pid: int
    step: int
    doing: str
    waits: bool
    seconds: float
    beat: int
    collective: str = ""


class Watch:
    """Of one process among several.

    Args:
        store: common to them, and to this run alone.
        rank, size: of the process among all.

    Attributes:
        limit: seconds of a wait, as it is now.
        told: who was silent or behind, in a sentence, where this process waits for too long.
        step: that is made.
    """

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.step = 0
        # A connection of its own: one that waits for a key keeps others from asking
        self._store = PrefixStore("watch", store.clone())  # type: ignore[attr-defined]
        self._stack: list[tuple[str, bool]] = [("start", False)]
        self._since = time.monotonic()
        self._beat = 0
        self.told: str | None = None
        self._done = threading.Event()
        self._asked = ""
        self._folder, self._limits, self.limit = Path(), 0.0, 0.0

    @contextmanager
    def doing(self, what: str, *, waits: bool) -> Iterator[None]:
        """Notes what is done while it is entered. waits: it may be waiting for the others."""
        self._stack.append((what, waits))
        self._since = time.monotonic()
        try:
            yield
        except BaseException:
            self._stack.pop()  # what is known of whom it waited for stays so
            raise
        self._stack.pop()
        self._since = time.monotonic()

    @contextmanager
    def on(self, folder: Path, seconds: float, first: float) -> Iterator[None]:
        """While entered, the process says where it is, and looks at others where it waits long.

        Args:
            folder: takes ``rank-N.txt`` with what is said and everybody's stacks.
            seconds: limit of a wait, from :meth:`begun` on.
            first: limit before that.
        """
        self._asked = ""
        self._folder, self._limits, self.limit = folder, seconds, first
        self._store.set_timeout(timedelta(seconds=_STORE_SECONDS))
        self._write()
        thread = threading.Thread(target=self._look_out, name="watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join(_STORE_SECONDS)

    def begun(self) -> None:
        """The first step is done, so waits are short."""
        self.limit = self._limits

    def _look_out(self) -> None:
        beat = min(_LONGEST_BEAT, self._limits / _BEATS)
        first, looked, since, failures = None, 0.0, self._since, 0
        while not self._done.wait(beat):
            if self._since != since:
                since, first = self._since, None
                if self.told is not None:
                    self._say("goes on")
                    self.told = None
            waited = time.monotonic() - since
            try:
                self._write()
                self._answer()
                failures = 0
                if not self._stack[-1][1] or waited < _LOOK * self.limit:
                    continue
                if first is None:
                    first, looked = self._everybody(), waited
                elif self.told is None and waited - looked > (_TELL - _LOOK) * self.limit:
                    self._tell(waited, first)
            except RuntimeError:  # the store is slow; or gone, and the run with it
                failures += 1
                if failures == _FAILURES:
                    return

    def _here(self) -> Whereabouts:
        what = ": ".join(name for name, _ in self._stack[1:]) or self._stack[0][0]
        seconds = time.monotonic() - self._since
        waits, self._beat = self._stack[-1][1], self._beat + 1
        long = waits and seconds >= _LOOK * self.limit
        host, collective = socket.gethostname(), pending() if long else ""
        return Whereabouts(
            host, os.getpid(), self.step, what, waits, seconds, self._beat, collective
        )

    def _write(self) -> None:
        self._store.set(str(self.rank), json.dumps(vars(self._here())))

    def _everybody(self) -> list[Whereabouts]:
        found: Sequence[Any] = self._store.multi_get([str(rank) for rank in range(self.size)])
        return [Whereabouts(**json.loads(each)) for each in found]

    def _answer(self) -> None:
        """Writes this process's stacks where another one asks for them: once for each step."""
        asked = self._store.get(_ASKED).decode() if self._store.check([_ASKED]) else ""
        if asked != self._asked:
            self._asked = asked
            self._write_stacks("another process waits for too long")

    def _tell(self, waited: float, first: Sequence[Whereabouts]) -> None:
        every = self._everybody()
        own = every[self.rank]
        self.told = blame(first, every)
        if own.collective:
            self.told += f". Waited for is {own.collective}"
        path = self._folder / f"rank-{self.rank}.txt"
        said = f"waits since {duration(waited)} in {place(own)}: {self.told}"
        self._say(f"{said}. Stacks are in {path}")
        self._asked = str(own.step)
        self._store.set(_ASKED, self._asked)
        lines = [f"rank {rank}: {place(each)}" for rank, each in enumerate(every)]
        self._write_stacks("\n".join([said, "", *lines]))

    def _write_stacks(self, why: str) -> None:
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / f"rank-{self.rank}.txt").open("w", encoding="utf-8") as file:
                file.write(f"rank {self.rank}, {place(self._here())}\n{why}\n\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)

    def _say(self, what: str) -> None:
        with suppress(OSError, ValueError):
            print(f"rank {self.rank} {what}", file=sys.stderr, flush=True)


def place(one: Whereabouts) -> str:
    """Where a process is, in words."""
    what = f"{one.doing}: {one.collective}" if one.collective else one.doing
    return f"step {one.step}, {what} (process {one.pid} on {one.host})"


def blame(before: Sequence[Whereabouts], now: Sequence[Whereabouts]) -> str:
    """Whom a wait is for, in a sentence.

    Args:
        before, now: where each process was, several beats apart.
    """
    ranks = range(len(now))
    silent = [rank for rank in ranks if now[rank].beat == before[rank].beat]
    if silent:
        return _named(
            silent, now, "is silent (stopped, or its machine can't be reached), and was last in"
        )
    busy = [rank for rank in ranks if not now[rank].waits]
    if busy:
        return _named(busy, now, "waits for nobody, and is in")
    least = min(one.step for one in now)
    behind = [rank for rank in ranks if now[rank].step == least]
    if len(behind) < len(now):
        return _named(behind, now, "is behind, in")
    if len({one.collective for one in now}) > 1:
        return _named(ranks, now, "waits in")
    return "all wait in the same step, and nobody is silent: see their stacks"


def _named(ranks: Sequence[int], every: Sequence[Whereabouts], how: str) -> str:
    shown = "; ".join(f"rank {rank} {how} {place(every[rank])}" for rank in ranks[:4])
    return f"{shown}; and {len(ranks) - 4} more" if len(ranks) > 4 else shown
