"""Runs of several processes without their imports: torchrun's agent and its ranks, forked.

Importing torch takes far longer than a tiny run. So one Python, ``python -m
tests.support.launches``, imports everything once and forks from there: for each run an agent as
torchrun has it (rendezvous, restarts in place), which forks its ranks. :class:`Host` is that
Python as a test sees it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.runs import ROOT

_SIGNAL_AT_PARENTS_END: Final = 1  # PR_SET_PDEATHSIG
COMMAND: Final = "videomae_fast.cli:main"
"""A target for :meth:`Host.start`: the command line, of which each rank gets the words."""
LIMIT: Final = 300.0
"""Seconds that a run may take; many times what any takes, as a machine may be busy."""
IMPORTED: Final = (
    "av",
    "numpy.ma",  # which its ctypeslib imports when it is used
    "tests.support.accidents",
    "tests.support.sharded",
    "torch._dynamo",  # which every rank imports with its first optimizer, in 0.6 s
    "torch.distributed.checkpoint",
    "torch.distributed.run",
    "videomae_fast.cli.pretrain",
    "videomae_fast.tasks.classification",
)
"""What ranks need: what is not here each of them imports anew."""


@dataclass(frozen=True)
class Run:
    """An agent with its ranks.

    Attributes:
        host: that forked it.
        pid: of the agent.
        log: file that takes what agent and ranks print.
    """

    host: Host
    pid: int
    log: Path

    def poll(self) -> int | None:
        """Exit status, negative for a signal's number; None while it runs."""
        return self.host.poll(self.pid)

    def said(self) -> str:
        """What agent and ranks printed so far."""
        return self.log.read_text(errors="replace")

    def finish(self, expected: int | None = 0) -> str:
        """Waits for its end; what it said. expected: exit status; None: any."""
        deadline = time.monotonic() + LIMIT
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline, f"it did not end:\n{self.said()}"
            time.sleep(0.02)
        assert expected is None or code == expected, f"ended with {code}:\n{self.said()}"
        return self.said()

    def kill(self) -> None:
        """SIGKILL for the agent alone."""
        os.kill(self.pid, signal.SIGKILL)

    def ranks(self) -> dict[int, int]:
        """Process ids of its ranks, by the names that these give themselves."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        found = {}
        for pid in children:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                if name.startswith("rank-"):
                    found[int(name[5:])] = int(pid)
        return found


class Host:
    """The Python that forks. At its end it kills the agents that still run."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._ended: dict[int, int] = {}

    def start(
        self,
        processes: int,
        target: str,
        words: list[str],
        log: Path,
        *,
        restarts: int = 0,
        folder: Path = ROOT,
    ) -> Run:
        """Starts ``target(words)`` in so many ranks of one agent.

        Args:
            processes: how many.
            target: ``module:function``; what it returns is a rank's exit status.
            words: what it gets.
            log: file for what is printed.
            restarts: in place, after a rank has ended badly.
            folder: in which they run.
        """
        more = {"restarts": restarts, "folder": str(folder)}
        return self._start(processes, target, words, log, **more)

    def meeting(self, nodes: Sequence[int], target: str, words: list[str], log: Path) -> list[Run]:
        """The same on several nodes, all of them here: an agent each, with its number of ranks."""
        rendezvous = {"nodes": [len(nodes)] * 2, "endpoint": free_endpoint()}
        return [self._start(processes, target, words, log, **rendezvous) for processes in nodes]

    def node(
        self, nodes: tuple[int, int], endpoint: str, first: bool, words: list[str], log: Path
    ) -> Run:
        """One of a number of nodes that changes, with one rank of the command line with accidents.

        Args:
            nodes: the least and the most.
            endpoint: where they meet, from :func:`free_endpoint`.
            first: it is that place.
            words: as accidents have them.
            log: file for what is printed.
        """
        more = {"nodes": nodes, "endpoint": endpoint, "restarts": 1, "first": first}
        more["environment"] = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # as docs say
        return self._start(1, "tests.support.accidents:run", words, log, **more)

    def alone(self, target: str, words: list[str], log: Path, **environment: str) -> Run:
        """The same in one process that no agent started. environment: variables beside its own."""
        return self._fork(log, {"start": target, "words": words, "environment": environment})

    def _start(
        self, processes: int, target: str, words: list[str], log: Path, **options: Any
    ) -> Run:
        started = {"start": target, "processes": processes, "words": words}
        return self._fork(log, {**started, **options})

    def _fork(self, log: Path, started: dict[str, Any]) -> Run:
        log.touch()  # there before the fork has it: Run.said may be asked at once
        return Run(self, self._ask({**started, "log": str(log)}), log)

    def poll(self, pid: int) -> int | None:
        if pid not in self._ended:
            code = self._ask({"poll": pid})
            if code is None:
                return None
            self._ended[pid] = code
        return self._ended[pid]

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.communicate(timeout=LIMIT)

    def _ask(self, question: dict[str, Any]) -> Any:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.launches"],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the host of runs has ended"
        return json.loads(answer)


def free_endpoint() -> str:
    """A place where nodes can meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def _serve() -> None:
    """Forks as it is told, line by line; ends with what it has forked when there are no more."""
    running: set[int] = set()
    for line in sys.stdin:
        question = json.loads(line)
        if "start" in question:
            answer: int | None = os.fork()
            if answer == 0:
                _become(question)
            assert answer is not None
            running.add(answer)
        else:
            pid, status = os.waitpid(question["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
            running.discard(pid)
        print(json.dumps(answer), flush=True)
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _become(question: dict[str, Any]) -> None:
    """An agent, or a process without one, from here to the end of the process."""
    code = 1
    try:
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), 0)
        handle = os.open(question["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.chdir(question.get("folder", ROOT))
        os.environ.update(question.get("environment", {}))
        if "processes" in question:
            code = _agent(question)
        else:
            code = _call(question["start"], question["words"])
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _agent(question: dict[str, Any]) -> int:
    """What torchrun does with its words; its exit status."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    least, most = question.get("nodes", (1, 1))
    waits: dict[str, Any] = {}
    if least < most:  # for others; and until one is taken for dead
        waits = {"last_call_timeout": 2, "keep_alive_interval": 1, "keep_alive_max_attempt": 6}
        waits["is_host"] = question["first"]
    config = LaunchConfig(
        min_nodes=least,
        max_nodes=most,
        rdzv_configs={"timeout": LIMIT, **waits},
        nproc_per_node=question["processes"],
        run_id=question.get("endpoint", uuid.uuid4().hex),
        rdzv_backend="c10d",
        rdzv_endpoint=question.get("endpoint", "localhost:0"),
        max_restarts=question.get("restarts", 0),
        monitor_interval=0.05,
        start_method="fork",
    )
    try:
        elastic_launch(config, _rank)(question["start"], question["words"])
    except ChildFailedError as error:
        print(f"torchrun: {error}", file=sys.stderr)
        return 1
    return 0


def _rank(target: str, words: list[str]) -> None:
    """A rank: named after its number, for :meth:`Run.ranks`. What torch forks gets a signal at its
    parent's end, as torchrun's ranks do not."""
    ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_END, 0)
    Path("/proc/self/comm").write_text(f"rank-{os.environ['RANK']}")
    code = _call(target, words)
    if code:
        sys.exit(code)


def _call(target: str, words: list[str]) -> int:
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)(words) or 0


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # a collection in a fork would copy all pages of what was imported
    _serve()
