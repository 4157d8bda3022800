"""Requests read ahead by worker processes, in order, whatever happens to the processes."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Self

import numpy as np
import torch

from videomae_fast.data.errors import DecodeError, OutputError
from videomae_fast.data.loader.fetching import Fetching
from videomae_fast.data.loader.slots import Slot, SlotWriter
from videomae_fast.data.loader.stats import PipelineStats
from videomae_fast.data.loader.workers import Outcome, Problem, WorkerPool
from videomae_fast.data.reading import ClipRequest, ReadResult, ReadSettings, read


@dataclass(frozen=True)
class _Task:
    number: int
    request: ClipRequest
    slot: str


class _Reader:
    """What a worker process does: reads a request and puts the pixels into its slot."""

    def __init__(self, settings: ReadSettings) -> None:
        self._settings = settings
        self._slots = SlotWriter()

    def __call__(self, task: _Task) -> tuple[ReadResult, tuple[int, ...]]:
        torch.set_num_threads(1)  # a process is one core's work
        result = read(task.request, self._settings, partial(self._slots.room, task.slot))
        if result.kind != "clips":  # those were made there
            try:
                self._slots.write(task.slot, result.data)
            except OutputError as error:  # its size is the file's
                raise DecodeError(str(error)) from error
        return replace(result, data=np.empty(0, dtype=np.uint8)), result.data.shape


class ReadAhead:
    """Reads requests in `workers` processes and gives them out in their order.

    A process that crashes, or takes longer than `time_limit` seconds for one request, is replaced
    and its request counts as one that can't be decoded. To be used in a ``with`` block; one thread
    takes the results, and has at most `held` of them before it gives their slots back.
    """

    def __init__(
        self,
        requests: Iterable[ClipRequest],
        settings: ReadSettings,
        *,
        workers: int,
        held: int,
        time_limit: float | None,
        stats: PipelineStats,
    ) -> None:
        self._stats = stats
        self._time_limit = time_limit
        # Besides those that are held, each process works on one and has one before it, and some
        # wait for a slow one.
        slots = held + 3 * workers
        self._slots: list[Slot] = []
        self._free = list(range(slots))
        self._arrived: dict[
            int, tuple[int, Outcome[_Task, tuple[ReadResult, tuple[int, ...]]]]
        ] = {}
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._stopped = False
        self._in_slot: dict[int, int] = {}
        self._next = 0
        self._fetching = Fetching(iter(requests), settings, self._wake)
        with ExitStack() as failing:  # there may be no files, memory or processes to be had
            for _ in range(slots):
                self._slots.append(Slot())
                failing.callback(self._slots[-1].close)
            self._pool = WorkerPool(
                _Reader(settings), workers=workers, time_limit=time_limit, queued=1
            )
            failing.callback(self._pool.close)
            self._thread = threading.Thread(target=self._pump, name="clip-reader", daemon=True)
            self._thread.start()
            failing.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self) -> tuple[ReadResult | DecodeError, int]:
        """The next request's result, or why there is none, and a slot to be given to :meth:`free`.

        Raises what went wrong in a process other than through its file: a bug, or no memory.
        """
        with self._changed:
            while self._next not in self._arrived:
                self._raise_error()
                if self._stopped:
                    raise RuntimeError("reading ahead was stopped")
                self._changed.wait()
            slot, outcome = self._arrived.pop(self._next)
            self._next += 1
        self._stats.worked(outcome.seconds)
        if outcome.result is None:
            assert outcome.problem is not None
            return self._reason(outcome.problem), slot
        result, shape = outcome.result
        size = int(np.prod(shape))
        return replace(result, data=self._slots[slot].view(size).reshape(shape)), slot

    def free(self, slot: int) -> None:
        """Says that what lies in a slot is no longer needed."""
        with self._changed:
            self._free.append(slot)
        self._pool.wake()

    def stop(self) -> None:
        """Ends the processes, whatever they are doing; who waits in :meth:`take` gets an error."""
        self._pool.stop()
        self._thread.join()
        self._fetching.close()
        self._pool.close()
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        """Stops, and gives the memory back: nobody may look at results any more."""
        self.stop()
        self._arrived.clear()
        self._error = None
        for slot in self._slots:
            slot.close()
        self._slots.clear()

    def _raise_error(self) -> None:
        """Raises what ended the reading, once, and keeps nothing that would keep this alive."""
        error, self._error = self._error, None
        if error is not None:
            self._stopped = True
            try:
                raise error
            finally:
                del error  # its traceback holds this frame

    def _pump(self) -> None:
        try:
            for outcome in self._pool.run(self._tasks()):
                with self._changed:
                    number = outcome.task.number
                    self._fetching.release(number)
                    self._arrived[number] = (self._in_slot.pop(number), outcome)
                    self._changed.notify_all()
        except BaseException as error:  # handed to the thread that takes the results
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _tasks(self) -> Iterator[_Task | None]:
        for number in count():
            while (request := self._fetched()) is None:
                yield None
            if isinstance(request, StopIteration):
                return
            while True:
                with self._changed:
                    slot = self._free.pop() if self._free else None
                if slot is not None:
                    break
                yield None
            self._in_slot[number] = slot
            yield _Task(number, request, self._slots[slot].path)

    def _fetched(self) -> ClipRequest | StopIteration | None:
        """The next request; that there is none left can't be raised in a generator."""
        try:
            return self._fetching.take()
        except StopIteration as end:
            return end

    def _wake(self) -> None:
        self._pool.wake()

    def _reason(self, problem: Problem) -> DecodeError:
        if problem.kind == "crashed":
            return DecodeError(f"the decoder crashed: {problem.reason}")
        if problem.kind == "timed out":
            return DecodeError(f"the decoder hung: reading {problem.reason}")
        if isinstance(problem.error, DecodeError):
            return problem.error
        assert problem.error is not None
        problem.error.add_note(f"in a loader process:\n{problem.trace}")
        raise problem.error
