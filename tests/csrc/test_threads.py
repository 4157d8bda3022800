"""Whose threads compute, and what they must survive: forks, several callers, exit.

What forks or ends a process runs in an interpreter of its own. In a fork of a process in which
torch has started threads, torch's own ops may hang: the children here call none that use several.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support import library
from tests.support.processes import run_python
from videomae_fast.ops import _native
from videomae_fast.ops._native import threads as native_threads

HERE = Path(__file__).parent
OWN, TORCHS = "own", "torch's"


@pytest.fixture(params=[OWN, TORCHS])
def whose(request: pytest.FixtureRequest) -> Iterator[str]:
    library = _native.library()
    assert library is not None
    library.vmf_use_openmp(None if request.param == OWN else _torchs())
    yield request.param
    library.vmf_use_openmp(native_threads.openmp_of_torch()[0])


def _torchs() -> int:
    address, why_not = native_threads.openmp_of_torch()
    if address is None:
        pytest.skip(why_not)
    return address


def _outputs(rows: int) -> list[Tensor]:
    """Of ops cut by row, by block of rows, by head and by token, big enough for several threads."""
    make = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 200, generator=make)
    bias, one = torch.randn(200, generator=make), torch.ones(200)
    index = torch.stack([torch.randperm(rows, generator=make, dtype=torch.int32)] * 2)
    out, _, _, rstd = library.add_layer_norm(x, x * 2, one, bias, bias, None, None, 1e-6)
    query = torch.randn(1, rows, 3, 16, generator=make)
    return [
        library.bias_gelu(x, bias),
        *library.bias_gelu_backward(x, x + 1, bias),
        out,
        rstd,
        *library.attention(query, query, query, None),
        library.token_gather(torch.stack([x, x]), index),
    ]


@pytest.mark.parametrize("rows", [1, 7, 401])
def test_the_same_bits_for_any_number_of_threads(whose: str, rows: int) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = _outputs(rows)
        for threads in (2, 3, 5, 16, 2):
            torch.set_num_threads(threads)
            for one, other in zip(_outputs(rows), alone, strict=True):
                assert torch.equal(one, other), threads
    finally:
        torch.set_num_threads(before)


def test_callers_at_the_same_time(whose: str, threads: int) -> None:
    alone = _outputs(301)
    wrong: list[str] = []

    def call() -> None:
        for _ in range(20):
            if not all(map(torch.equal, _outputs(301), alone)):
                wrong.append(threading.current_thread().name)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=300)
    assert not any(caller.is_alive() for caller in callers)
    assert not wrong


SETUP = """
import ctypes, multiprocessing, os, sys, threading, time
import torch
from tests.support import library
from videomae_fast.ops import _native
from videomae_fast.ops._native.threads import is_fork, openmp_of_torch
torch.set_num_threads(3)
x = torch.arange(600_000.0).reshape(3000, 200) / 1e5
def compute():
    return library.bias_gelu(x, None)
def waited(child):
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code: sys.exit(f"child: {code}")
"""
FORKED = """
from tests.csrc.pooled import work
if sys.argv[1] == "own":
    _native.library().vmf_use_openmp(None)
expected = compute().numpy().tobytes()
x @ x.T  # torch's threads are there
stop = False
def keep_calling():
    while not stop: compute()
other = threading.Thread(target=keep_calling)
other.start()
def good(): return compute().numpy().tobytes() == expected
for _ in range(10):
    child = os.fork()
    if child == 0:
        fine = good() and good() and is_fork()
        grandchild = os.fork()
        if grandchild == 0: os._exit(0 if good() else 1)
        waited(grandchild)
        os._exit(0 if fine else 1)
    waited(child)
stop = True
other.join()
if not good(): sys.exit("the parent is broken")
print("forks are fine", flush=True)

expected = [work(n) for n in range(6)]
with multiprocessing.get_context("fork").Pool(2) as pool:
    if pool.map(work, range(6)) != expected: sys.exit("a pool of forks: wrong")
print("a pool is fine", flush=True)

# The function alone: torch's own calls abort a daemon thread's process at exit.
from videomae_fast.ops._native.calls import _function
function, out = _function("vmf_bias_gelu", "pppiii"), torch.empty_like(x)
arguments = x.data_ptr(), None, out.data_ptr(), 3000, 200, 3
def for_ever():
    while True: function(*arguments)
for _ in range(2):
    threading.Thread(target=for_ever, daemon=True).start()
for _ in range(20): compute()
time.sleep(0.2)
print("exit", flush=True)
"""
LOADED_LATER = """
x @ x.T
child = os.fork()
if child == 0:
    compute()
    os._exit(0)
waited(child)
print("a child is fine", flush=True)

from tests.csrc.pooled import work
expected = [work(n) for n in range(6)]
for method in ("forkserver", "spawn"):
    with multiprocessing.get_context(method).Pool(1) as pool:
        if pool.map(work, range(6)) != expected: sys.exit(f"{method}: wrong")
    print(f"{method} is fine", flush=True)
"""


@cache
def _lived(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """An interpreter from its start to its end, for all tests of it: importing torch takes longer
    than all that these do."""
    return run_python(SETUP + code, *words)


def _said(line: str, code: str, *words: str) -> None:
    lived = _lived(code, *words)
    assert line in lived.stdout.splitlines(), lived


@pytest.mark.slow
def test_forks_in_the_midst_of_calls(whose: str) -> None:
    """torch's threads and ours at work; children compute with three threads, and fork again."""
    _said("forks are fine", FORKED, whose)


@pytest.mark.slow
def test_a_child_that_loads_the_library_itself() -> None:
    """After a fork of a process in which torch, but not the library, has started threads."""
    _said("a child is fine", LOADED_LATER)


@pytest.mark.slow
def test_a_pool_of_forks(whose: str) -> None:
    _said("a pool is fine", FORKED, whose)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_processes_that_load_the_library_anew(method: str) -> None:
    _said(f"{method} is fine", LOADED_LATER)


@pytest.mark.slow
def test_exit_waits_for_nobody(whose: str) -> None:
    """Neither for idle helpers nor for a daemon thread in the midst of a call."""
    _said("exit", FORKED, whose)
    assert _lived(FORKED, whose).returncode == 0, _lived(FORKED, whose)


def test_only_a_process_that_is_no_fork_takes_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    _torchs()
    monkeypatch.setattr(native_threads, "is_fork", lambda: True)
    assert native_threads.openmp_of_torch() == (
        None,
        "this process is a fork, or not known to be none",
    )
    monkeypatch.setattr(native_threads, "is_fork", lambda: False)
    monkeypatch.setattr(torch.backends.openmp, "is_available", lambda: False)
    assert native_threads.openmp_of_torch()[0] is None


def test_a_process_that_can_not_tell_counts_as_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: "garbage")
    assert native_threads.is_fork()


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [[], ["-DWITH_OPENMP", "-fopenmp"], ["-fsanitize=thread", "-DWITHOUT_FORK"]],
    ids=["own", "openmp", "thread sanitizer"],
)
def test_the_loop_by_itself(flags: list[str], tmp_path: Path) -> None:
    """parallel_test.cpp: every item once, not too many threads, exceptions, nesting, forks."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    program = tmp_path / "program"
    sources = [HERE / "parallel_test.cpp", HERE.parents[1] / "csrc" / "parallel.cpp"]
    build = [compiler, "-std=c++20", "-O1", "-g", *flags, *map(str, sources), "-pthread"]
    built = subprocess.run(
        [*build, "-o", str(program)], capture_output=True, text=True, check=False
    )
    if built.returncode and flags:
        pytest.skip(f"this compiler has no {flags[0]}: {built.stderr[-300:]}")
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([program], capture_output=True, text=True, timeout=300, check=False)
    if "unexpected memory mapping" in ran.stderr:
        pytest.skip("this sanitizer can't run on this kernel, which places memory elsewhere")
    assert ran.returncode == 0, ran.stderr
