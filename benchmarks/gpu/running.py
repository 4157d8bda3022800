"""Parts as processes: each with a time limit, its output kept, and its failures told at once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.gpu.parts import Call, Part
from benchmarks.gpu.results import TOLD, tested
from videomae_fast.ops._attention.choice import VARIABLE

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".gpu-cache"
LOG = "output.txt"
AT_ONCE = "FAILED NOW"  # how a line begins that is printed when it comes
LOOK = 0.25  # seconds between looks at a running part
OFTEN = 10.0  # seconds after which what there is is kept again
Outcome = Literal["running", "passed", "failed", "timed out", "no time was left", "not here"]


@dataclass
class Result:
    """What became of a part."""

    name: str
    outcome: Outcome
    seconds: float = 0.0
    limit: float = 0.0
    code: int | None = None
    command: list[str] = field(default_factory=list)
    tests: dict[str, Any] | None = None
    told: list[str] = field(default_factory=list)

    def read(self, folder: Path) -> None:
        """Fills in what the part's folder says."""
        text = (folder / LOG).read_text(encoding="utf-8", errors="replace")
        self.told = [line[:300] for line in text.splitlines()[-TOLD:]]
        self.tests = tested(folder / "tests.xml")


def run_part(part: Part, call: Call, keep: Callable[[Result], None] = lambda _: None) -> Result:
    """Runs a part until it ends or its time is up.

    Args:
        keep: takes the result so far, every few seconds.
    """
    words = part.command(call)
    result = Result(part.name, "running", limit=call.seconds, command=words)
    log = call.out / LOG
    log.touch()
    if part.program is not None and not call.tiny and shutil.which(part.program) is None:
        return _not_here(result, call, f"{part.program} is not on this machine")
    begin = time.monotonic()
    with log.open("wb") as file:
        try:
            process = subprocess.Popen(
                words, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                env=environment(call),
            )  # fmt: skip
        except OSError as error:
            return _not_here(result, call, str(error))
        try:
            result.code = _watched(process, result, call, log, begin, keep)
        finally:
            _end(process)
    result.seconds = time.monotonic() - begin
    result.outcome = "timed out" if result.code is None else "failed" if result.code else "passed"
    result.read(call.out)
    return result


def _not_here(result: Result, call: Call, why: str) -> Result:
    (call.out / LOG).write_text(f"{why}\n", encoding="utf-8")
    result.outcome = "not here"
    result.read(call.out)
    return result


def _watched(
    process: subprocess.Popen[bytes],
    result: Result,
    call: Call,
    log: Path,
    begin: float,
    keep: Callable[[Result], None],
) -> int | None:
    """The exit code, or None where the time is up first."""
    printed, kept = 0, begin
    while True:
        code: int | None
        try:
            code = process.wait(LOOK)
        except subprocess.TimeoutExpired:
            code = None
        now = time.monotonic()
        printed = _tell(log, printed)
        if code is not None or now - begin >= call.seconds:
            return code
        if now - kept >= OFTEN:
            kept = now
            result.seconds = now - begin
            result.read(call.out)
            keep(result)


def _tell(log: Path, start: int) -> int:
    """Prints the new lines that say a failure; returns where the next look begins."""
    with log.open("rb") as file:
        file.seek(start)
        new = file.read()
    whole = new[: new.rfind(b"\n") + 1]
    for line in whole.decode(errors="replace").splitlines():
        if line.startswith(AT_ONCE):
            print(line[:500], flush=True)
    return start + len(whole)


def environment(call: Call) -> Mapping[str, str]:
    """Of a part's process: the attention table of this run, where it is measured already."""
    mine = {
        "PYTHONUNBUFFERED": "1",
        "TRITON_CACHE_DIR": str(CACHE / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(CACHE / "inductor"),
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    }
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    found = {**mine, **os.environ, "PYTHONPATH": path}
    if call.table.exists():
        found[VARIABLE] = str(call.table)
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends what a part left running, its own processes with it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
