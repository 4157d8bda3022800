"""A function run in processes that may crash or hang: the task is lost, the run is not.

Each process has a pipe of its own, so that one that is killed in the middle of a message leaves no
lock behind that others wait for. Processes end with the one that started them, however it ends.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Final, Generic, Literal, Self, TypeVar

from videomae_fast.data.errors import WorkerDiedError, sentence
from videomae_fast.data.loader.running_clock import RunningClock

Task = TypeVar("Task")
Result = TypeVar("Result")

# A server process that has imported what it will need forks the workers: a new one takes
# milliseconds, and no thread or CUDA context of the caller's is copied.
_CONTEXT: Final = multiprocessing.get_context("forkserver")
_JOIN_SECONDS: Final = 5.0
_TICK: Final = 1.0
_TICKS: Final = 20  # of a time limit, at least


@dataclass(frozen=True)
class Problem:
    """Why a task has no result.

    kind: ``"raised"``: the function raised ``error``; ``"crashed"``: its process ended;
    ``"timed out"``: it was killed after the time limit; reason: a sentence for a reader, which
    begins with the class of an error that is not this library's; trace: the traceback of ``error``.
    """

    kind: Literal["raised", "crashed", "timed out"]
    reason: str
    error: BaseException | None = None
    trace: str = ""


@dataclass(frozen=True)
class Outcome(Generic[Task, Result]):
    """What became of a task: a result, or a problem; seconds: how long it took."""

    task: Task
    result: Result | None
    problem: Problem | None
    seconds: float


def in_order(
    outcomes: Iterable[Outcome[Task, Result]], number: Callable[[Task], int]
) -> Iterator[Outcome[Task, Result]]:
    """Outcomes by the numbers of their tasks, from 0 on; early ones wait for those before them."""
    waiting: dict[int, Outcome[Task, Result]] = {}
    wanted = 0
    for outcome in outcomes:
        waiting[number(outcome.task)] = outcome
        while wanted in waiting:
            yield waiting.pop(wanted)
            wanted += 1


class WorkerPool(Generic[Task, Result]):
    """Runs ``function(task)`` in ``workers`` processes, to be used in a ``with`` block.

    function: importable by name (it is pickled), as are its tasks and results, which should be
    small; workers: at least 1; time_limit: seconds for one task, None for no limit, those left out
    in which the whole job was stopped (:class:`RunningClock`); queued: tasks
    that a process holds beside the one it works on. A process that crashes, is killed, or exceeds
    the limit is replaced, the task it worked on is reported, and others do what it held.

    With one queued, a process goes on at once although this one is slow to answer: a thread has
    to wait for the interpreter (5 ms each time) while another one computes. Where tasks take long,
    none should be: a free process could do it sooner.
    """

    def __init__(
        self,
        function: Callable[[Task], Result],
        *,
        workers: int,
        time_limit: float | None = None,
        queued: int = 0,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers ({workers}) must be at least 1")
        if time_limit is not None and not time_limit > 0:
            raise ValueError(f"time_limit ({time_limit:g} s) must be above 0")
        if queued < 0:
            raise ValueError(f"queued ({queued}) must be at least 0")
        self._function = function
        self._time_limit = time_limit
        tick = math.inf if time_limit is None else min(_TICK, time_limit / _TICKS)
        self._clock = RunningClock(tick)
        self._depth = 1 + queued
        self._again: deque[Task] = deque()
        # Has an effect only before the first process of this kind; else imports take longer.
        _CONTEXT.set_forkserver_preload([function.__module__])
        self._workers: list[_Worker] = []
        self._woken, self._waker = _CONTEXT.Pipe(duplex=False)
        self._waking, self._is_woken = threading.Lock(), False
        self._stopped = False
        try:
            for _ in range(workers):
                self._workers.append(_Worker(function, self._clock))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kills the processes, whatever they are doing."""
        for worker in self._workers:
            worker.kill()
        self._workers.clear()
        self._woken.close()  # twice does no harm
        with self._waking:
            self._waker.close()

    def wake(self) -> None:
        """Makes :meth:`run` ask for tasks again that it was not given; from any thread."""
        with self._waking:  # else it may be closed in between, and its number be another file's
            if not self._is_woken and not self._waker.closed:
                self._is_woken = True  # once is enough, and a pipe has an end
                self._waker.send(None)

    def stop(self) -> None:
        """Ends :meth:`run`, from any thread, without waiting for tasks in progress."""
        self._stopped = True
        self.wake()

    def run(self, tasks: Iterable[Task | None]) -> Iterator[Outcome[Task, Result]]:
        """Yields every task's outcome as it comes; tasks are taken when a process is free.

        A None among the tasks means that there is none yet: the next one is asked for when an
        outcome has come or :meth:`wake` was called.

        Raises :class:`WorkerDiedError` where a process ends before it has taken a task.
        """
        source = iter(tasks)
        exhausted = False
        while not self._stopped:
            while (self._again or not exhausted) and (free := self._free()) is not None:
                try:
                    task = self._again.popleft() if self._again else next(source)
                except StopIteration:
                    exhausted = True
                    continue
                if task is None:
                    break
                if not free.give(task):  # its process is no more
                    self._again.append(task)
                    if free.busy:
                        break  # told by its connection, with the task it was lost at
                    self._replace(free)
            busy = [worker for worker in self._workers if worker.busy]
            if exhausted and not busy and not self._again:
                return
            watched = {worker.connection: worker for worker in self._workers}
            for ready in wait([self._woken, *watched], self._patience(busy)):
                if ready is self._woken:
                    self._woken.recv()
                    self._is_woken = False  # before it asks again
                    continue
                outcome = self._receive(watched[ready])  # type: ignore[index]
                if outcome is not None:
                    yield outcome
            for worker in busy:
                if worker.busy and self._overdue(worker):
                    problem = Problem("timed out", f"took longer than {self._time_limit:g} s")
                    yield self._lost(worker, problem)

    def _free(self) -> _Worker | None:
        """The process with the least to do, if it can hold another task."""
        able = [one for one in self._workers if one.ready and one.held < self._depth]
        return min(able, key=lambda one: one.held, default=None)

    def _patience(self, busy: list[_Worker]) -> float | None:
        if self._time_limit is None or not busy:
            return None
        left = min(worker.since for worker in busy) + self._time_limit - self._clock.now()
        return min(max(0.0, left), self._clock.tick)

    def _overdue(self, worker: _Worker) -> bool:
        """Whether it hangs; not where its report is there, and only this side was slow."""
        limit = self._time_limit
        if limit is None or self._clock.now() - worker.since < limit:
            return False
        return not worker.connection.poll()

    def _receive(self, worker: _Worker) -> Outcome[Task, Result] | None:
        """The outcome that a process reports, or that its end is; None where it has no task."""
        if worker not in self._workers:
            return None
        try:
            reply = worker.connection.recv()
        except (EOFError, OSError):
            how = worker.end()
            if worker.busy:
                return self._lost(worker, Problem("crashed", f"its process {how}"))
            if not worker.ready:
                raise WorkerDiedError(
                    f"a worker process {how} while it started: too little memory, or the program "
                    "runs the pool when it is imported (put the call under "
                    "`if __name__ == '__main__':`)"
                ) from None
            self._replace(worker)
            return None
        if not worker.ready:
            worker.ready = True
            return None
        return worker.finish(*reply)

    def _lost(self, worker: _Worker, problem: Problem) -> Outcome[Task, Result]:
        self._replace(worker)
        outcome = worker.finish(None, problem, self._clock.now() - worker.since)
        self._again.extend(worker.give_up())
        return outcome

    def _replace(self, worker: _Worker) -> _Worker:
        worker.kill()
        new = _Worker(self._function, self._clock)
        self._workers[self._workers.index(worker)] = new
        return new


class _Worker:
    """A process, the pipe to it, and the tasks it has: it works on the first, since ``since``."""

    def __init__(self, function: Callable[..., Any], clock: RunningClock) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        lifeline, self._lifeline = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(
            target=_serve, args=(theirs, lifeline, function), daemon=True
        )
        self._process.start()
        theirs.close()
        lifeline.close()
        self.ready = False
        self.since = 0.0
        self._clock = clock
        self._tasks: deque[Any] = deque()

    @property
    def held(self) -> int:
        return len(self._tasks)

    @property
    def busy(self) -> bool:
        return bool(self._tasks)

    def give(self, task: Any) -> bool:
        """Hands the task over; False where the process is no more."""
        try:
            self.connection.send(task)
        except (BrokenPipeError, ConnectionResetError):
            return False
        if not self.busy:
            self.since = self._clock.now()
        self._tasks.append(task)
        return True

    def finish(self, result: Any, problem: Problem | None, seconds: float) -> Outcome[Any, Any]:
        self.since = self._clock.now()
        return Outcome(self._tasks.popleft(), result, problem, seconds)

    def give_up(self) -> list[Any]:
        """Tasks that it never began."""
        tasks = list(self._tasks)
        self._tasks.clear()
        return tasks

    def end(self) -> str:
        """How the process ended, in words."""
        self._process.join(_JOIN_SECONDS)
        code = self._process.exitcode
        if code is None:
            return "closed its connection"
        if code >= 0:
            return f"ended with exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = " (by hand, or for want of memory)" if name == "SIGKILL" else ""
        return f"was ended by {name}{hint}"

    def kill(self) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._process.close()
        self._lifeline.close()
        self.connection.close()


def _serve(connection: Connection, lifeline: Connection, function: Callable[[Any], Any]) -> None:
    """What a worker process does."""
    # These reach the whole process group: the main process ends its workers in order, and what
    # they have in hand is not lost.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
    connection.send(None)  # ready
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        result, problem, begin = None, None, time.monotonic()
        try:
            result = function(task)
        except Exception as error:
            problem = Problem("raised", sentence(error), _portable(error), traceback.format_exc())
        connection.send((result, problem, time.monotonic() - begin))


def _end_with_parent(lifeline: Connection) -> None:
    """Ends this process at once, in the middle of a task too, when the parent is gone."""
    try:
        lifeline.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error, or one with the same words where it can't be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(sentence(error))
    return error
