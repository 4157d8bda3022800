"""The worker pool: crashes, hangs, kills and bugs cost a task each, and are told apart."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.forked_server import serve_workers
from tests.support.launches import Host
from videomae_fast.data.errors import DecodeError, WorkerDiedError
from videomae_fast.data.loader.running_clock import RunningClock
from videomae_fast.data.loader.workers import Outcome, WorkerPool


class Unsendable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Speechless(Exception):
    def __str__(self) -> str:
        raise AttributeError("no words")


def act(word: str) -> tuple[str, int]:
    """Does what the word says."""
    if word == "hang":
        time.sleep(1000)
    elif word == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif word == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif word == "exit":
        os._exit(3)
    elif word == "bad file":
        raise DecodeError("0 bytes")
    elif word == "bug":
        raise Unsendable(1, 2)
    elif word == "speechless":
        raise Speechless(Unsendable(1, 2))
    elif word == "no text":
        raise ValueError("\ud800\n" + "x" * 999)
    elif word.startswith("works for a second"):
        for _ in range(20):
            time.sleep(0.05)
    elif word.startswith("slow"):
        time.sleep(0.05)
    return word, os.getpid()


def outcomes(words: list[str], **settings: float) -> dict[str, Outcome[str, tuple[str, int]]]:
    workers, queued = int(settings.get("workers", 2)), int(settings.get("queued", 0))
    limit = settings.get("time_limit", 60.0)
    with WorkerPool(act, workers=workers, time_limit=limit, queued=queued) as pool:
        done = list(pool.run(words))
    assert sorted(outcome.task for outcome in done) == sorted(words)  # each exactly once
    return {outcome.task: outcome for outcome in done}


@pytest.fixture(params=[0, 1, 3])
def queued(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


class Until:
    """Tasks until so many processes had some, however late they start; and what came of them."""

    def __init__(self, processes: int) -> None:
        self.done: list[Outcome[str, tuple[str, int]]] = []
        self.given: list[str] = []
        self._processes = processes

    def all_work(self, pool: WorkerPool[str, tuple[str, int]]) -> None:
        for outcome in pool.run(self._words()):
            self.done.append(outcome)

    def _words(self) -> Iterator[str]:
        late = time.monotonic() + 60
        for index in itertools.count():
            seen = {one.result[1] for one in self.done if one.result}
            if len(seen) == self._processes or time.monotonic() > late:
                return
            self.given.append(f"slow {index}")
            yield self.given[-1]


def test_every_task_is_done_once_by_all_processes(queued: int) -> None:
    tasks = Until(3)
    with WorkerPool(act, workers=3, time_limit=60.0, queued=queued) as pool:
        tasks.all_work(pool)
    assert sorted(one.task for one in tasks.done) == sorted(tasks.given)
    assert len({one.result[1] for one in tasks.done if one.result}) == 3
    assert all(one.result and 0.05 <= one.seconds < 60 for one in tasks.done)


def test_each_kind_of_failure_costs_its_task_only(queued: int) -> None:
    faults = ["segfault", "killed", "exit", "bad file", "bug", "speechless", "no text", "hang"]
    words = [word for fault in faults for word in (fault, f"fine {fault}")]
    done = outcomes(words, time_limit=3, queued=queued)
    for fault in faults:
        assert done[f"fine {fault}"].problem is None
        assert done[fault].result is None
    told = {fault: done[fault].problem for fault in faults}
    kinds = {fault: problem and problem.kind for fault, problem in told.items()}
    assert kinds == {
        "segfault": "crashed",
        "killed": "crashed",
        "exit": "crashed",
        "bad file": "raised",
        "bug": "raised",
        "speechless": "raised",
        "no text": "raised",
        "hang": "timed out",
    }
    reasons = {fault: problem.reason for fault, problem in told.items() if problem}
    assert reasons["segfault"] == "its process was ended by SIGSEGV"
    assert "SIGKILL (by hand, or for want of memory)" in reasons["killed"]
    assert reasons["exit"] == "its process ended with exit code 3"
    assert reasons["hang"] == "took longer than 3 s"
    assert reasons["bug"] == "Unsendable: 1 and 2"
    assert reasons["speechless"] == "Speechless: says nothing (AttributeError)"
    assert reasons["no text"] == "ValueError: \\ud800 " + "x" * 290 + "..."
    assert told["bad file"] is not None
    assert isinstance(told["bad file"].error, DecodeError)
    assert told["bad file"].error.reason == "0 bytes"
    assert told["bug"] is not None
    assert isinstance(told["bug"].error, RuntimeError)
    assert "Unsendable" in told["bug"].trace


def test_only_the_task_that_hangs_is_ended(queued: int) -> None:
    """The limit is per task: a process that works on for longer in sum is left alone."""
    words = [f"slow {index}" for index in range(30)]
    done = outcomes(words, workers=1, time_limit=1.2, queued=queued)
    assert len({outcome.result[1] for outcome in done.values()}) == 1  # type: ignore[index]


HERE = "tests.data.loader.test_workers"


def job(_: list[str]) -> None:
    """A target for ``Host``: a pool in a session of its own."""
    os.setsid()
    serve_workers()
    with WorkerPool(act, workers=2, time_limit=2.0, queued=1) as pool:
        assert not any(done.problem for done in pool.run(["slow"] * 4))
        print("begun", flush=True)
        print([done.problem for done in pool.run(["works for a second"] * 2)], flush=True)


def test_seconds_in_which_the_job_is_stopped_are_not_counted(host: Host, tmp_path: Path) -> None:
    run = host.alone(f"{HERE}:job", [], tmp_path / "log")
    while "begun\n" not in run.said():
        assert run.poll() is None, run.said()
        time.sleep(0.01)
    time.sleep(0.3)
    os.killpg(run.pid, signal.SIGSTOP)
    time.sleep(2.2)
    os.killpg(run.pid, signal.SIGCONT)
    assert run.finish() == "begun\n[None, None]\n"


def test_a_long_gap_counts_as_a_stop() -> None:
    times = iter([0.0, 0.9, 1.9, 3.9, 100.0, 100.5])
    clock = RunningClock(1.0, clock=lambda: next(times))
    ran = [clock.now() for _ in range(5)]
    assert ran == pytest.approx([0.9, 1.9, 3.9, 5.9, 6.4])


def test_a_process_that_dies_while_it_waits_is_replaced(queued: int) -> None:
    with WorkerPool(act, workers=1, queued=queued) as pool:
        (first,) = pool.run(["one"])
        assert first.result is not None
        os.kill(first.result[1], signal.SIGKILL)
        time.sleep(0.2)
        results = list(pool.run(["two", "three"]))
    lost = [outcome for outcome in results if outcome.problem is not None]
    assert len(lost) <= 1  # the task it was given before its end was noticed
    assert results[-1].problem is None


def begun(path: Path) -> float:
    """When the task was begun, on the clock that all processes of a machine share."""
    path.write_text("begun")
    return time.monotonic()


def test_a_process_has_its_next_task_before_it_is_asked_for(tmp_path: Path) -> None:
    """Else every task waits for a main process that is slow to answer."""
    with WorkerPool(begun, workers=1, queued=1) as pool:
        paths = [tmp_path / name for name in "abc"]
        done = pool.run(paths)
        next(done)  # it has the second one since before it reported the first
        contents(paths[1])
        asked = time.monotonic()
        second, third = (outcome.result for outcome in done)
    assert second is not None
    assert third is not None
    assert second < asked < third


def test_a_report_that_this_side_is_slow_to_read_is_no_hang(queued: int) -> None:
    with WorkerPool(act, workers=2, time_limit=1.0, queued=queued) as pool:
        Until(2).all_work(pool)
        done = pool.run(["one", "slow 1", "slow 2"])
        found = [next(done)]
        time.sleep(1.5)
        found += done
    assert [outcome.problem for outcome in found] == [None] * 3


def test_a_task_goes_to_the_process_with_least_to_do() -> None:
    with WorkerPool(act, workers=2, queued=3) as pool:
        Until(2).all_work(pool)
        assert len({one.result[1] for one in pool.run(["slow"] * 2) if one.result}) == 2


def report_and_hang(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(1000)


def parent(words: list[str]) -> None:
    """A target for ``Host``: a pool whose processes name themselves in files, and hang."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    serve_workers()
    with WorkerPool(report_and_hang, workers=2) as pool:
        list(pool.run([Path(word) for word in words]))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_their_parent_however_it_ends(
    host: Host, tmp_path: Path, how: int
) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    run = host.alone(f"{HERE}:parent", list(map(str, files)), tmp_path / "log")
    workers = [int(contents(path)) for path in files]
    os.kill(run.pid, how)
    run.finish(None)
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [pid for pid in workers if alive(pid)]


def contents(path: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.02)
    raise AssertionError(f"{path} was not written")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_what_can_not_start_says_so() -> None:
    with (
        pytest.raises(WorkerDiedError, match="while it started"),
        WorkerPool(Unloadable(), workers=1) as pool,
    ):
        list(pool.run(["task"]))


class Unloadable:
    """A function that can be sent but not received."""

    def __call__(self, word: str) -> str:
        return word

    def __reduce__(self) -> tuple[object, ...]:
        return (int, ("not a number",))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"workers": 0}, "workers"),
        ({"workers": 1, "time_limit": 0.0}, "time_limit"),
        ({"workers": 1, "queued": -1}, "queued"),
    ],
)
def test_impossible_settings(settings: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        WorkerPool(act, **settings)  # type: ignore[arg-type]
