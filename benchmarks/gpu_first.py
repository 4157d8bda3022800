"""The first minutes on a GPU in one command, what is worth most first.

    python -m benchmarks.gpu_first --out results                        # as much as 9 minutes allow
    python -m benchmarks.gpu_first --out results --parts tests ceilings
    python -m benchmarks.gpu_first --device cpu --tiny --out results    # a rehearsal

Each part is a process of its own with a time limit of its own: one that fails, hangs or breaks the
GPU's context costs itself alone, and the next one begins. After each part the results are written
anew, in three files whatever the number of parts:

    summary.md       what passed, what failed, how long it took, and the end of what each part said
    gpu-first.json   the same for programs
    results.tar.gz   every file and the whole output of every part

Parts keep what they compiled in the folder .gpu-cache, so that the same command in the same
checkout is faster the second time.
"""

from __future__ import annotations

import argparse
import io
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.record import environment, write

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".gpu-cache"
SECONDS = 530.0  # of a command that may take 10 minutes
RESERVE = 5.0  # to end a part and to write the results
TOLD = 40  # lines of a part's output in the summary
Outcome = Literal["passed", "failed", "timed out", "no time was left"]


@dataclass(frozen=True)
class Call:
    """What a part's command depends on: the device, its folder, the seconds that it may take."""

    device: str
    tiny: bool
    batch: int | None
    out: Path
    seconds: float


@dataclass(frozen=True)
class Part:
    """One process.

    Attributes:
        command: what to run.
        limit: seconds after which it is ended.
        needs: seconds below which it is not begun.
        by_default: whether it runs where no parts are named.
    """

    name: str
    command: Callable[[Call], list[str]]
    limit: float
    needs: float
    by_default: bool = True


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


def _python(*words: str) -> list[str]:
    return [sys.executable, *words]


def _look(call: Call) -> list[str]:
    """Passes where torch works on the device, whatever else is missing."""
    works = f"import torch; print(torch.ones(2, device={call.device!r}).sum())"
    python = shlex.quote(sys.executable)
    steps = (f"{python} -m videomae_fast doctor", "nvidia-smi", f"{python} -c {shlex.quote(works)}")
    return ["sh", "-c", "; ".join(steps)]


def _build(call: Call) -> list[str]:
    """The CPU's library, which the data path uses; a clone has none."""
    folder = "build/gpu-first"
    steps = (
        f"cmake -S csrc -B {folder} -DCMAKE_BUILD_TYPE=Release",
        f"cmake --build {folder} --parallel 8",
        f"cmake --install {folder} --prefix .",
    )
    return ["sh", "-c", " && ".join(steps)]


def _tests(call: Call) -> list[str]:
    """A test that breaks the GPU's context ends its process: the others have their own."""
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={call.out}/tests.xml"]
    if call.tiny:
        return _python(*words, "tests/kernels/test_tokens.py", "-k", "gather_copies")
    processes = max(1, min(14, (os.cpu_count() or 2) - 2))
    return _python(*words, "--gpu", "tests/kernels", "-n", str(processes))


def _measured(module: str, *words: str) -> Callable[[Call], list[str]]:
    def command(call: Call) -> list[str]:
        found = ["-m", f"benchmarks.{module}", "--device", call.device, "--out", str(call.out)]
        return _python(*found, *words, *(["--tiny", "--repeats", "2"] if call.tiny else []))

    return command


def _batched(module: str, batch: int, *words: str) -> Callable[[Call], list[str]]:
    def command(call: Call) -> list[str]:
        return [*_measured(module, *words)(call), "--batch", str(call.batch or batch)]

    return command


def _steps(size: str, batch: int, *names: str) -> Callable[[Call], list[str]]:
    def command(call: Call) -> list[str]:
        words = ["--parts", "baselines", "--size", size, "--repeats", "9", "--warmup", "2"]
        begun = _batched("ceilings", batch, *words)(call)
        # It ends by itself, with all that it timed, before it is ended.
        return [*begun, "--seconds", f"{0.7 * call.seconds:.0f}", "--variants", *names]

    return command


def _read(call: Call) -> list[str]:
    words = ["-m", "benchmarks.data_speed", "--device", call.device, "--out", str(call.out)]
    few = ["--count", "1", "--length", "2", "--rounds", "1", "--pipeline-seconds", "0"]
    return _python(*words, *(few if call.tiny else []))


_EAGER = ("ours, eager", "official as shipped, eager", "official repaired, eager", "ours, captured")
_COMPILED = (
    "ours, compiled",
    "strong",
    "official as shipped, compiled",
    "official repaired, compiled",
    "ours, compiled and captured",
)
_OPS = ("--no-compile", "--repeats", "10", "--size")

# In order of worth. Limits are several times what is expected; they add up to more than there is.
PARTS = (
    Part("environment", _look, 60, 5),
    Part("build", _build, 90, 5),
    Part("tests", _tests, 270, 60),
    Part("ceilings", _measured("ceilings", "--parts", "copy", "matmul", "attention"), 90, 20),
    Part("attention", _batched("attention_choice", 128, "--repeats", "10"), 120, 30),
    Part("step-base", _steps("base", 128, *_EAGER), 120, 40),
    Part("step-giant", _steps("giant", 32, *_EAGER), 150, 60),
    Part("ops-base", _batched("op_speed", 128, *_OPS, "base"), 120, 30),
    Part("compiled-base", _steps("base", 128, *_COMPILED), 400, 120),
    Part(
        "launches",
        _batched("launch_choice", 128, "--size", "base", "--repeats", "7"),
        300,
        60,
        False,
    ),
    Part("ops-giant", _batched("op_speed", 64, *_OPS, "giant"), 150, 40, by_default=False),
    Part("compiled-giant", _steps("giant", 32, *_COMPILED[:3]), 520, 180, by_default=False),
    Part(
        "paper",
        lambda call: [
            *_measured("paper", "--sizes", "base", "giant")(call),
            "--seconds",
            f"{0.7 * call.seconds:.0f}",
        ],
        400,
        120,
        by_default=False,
    ),
    Part("data", _read, 200, 40, by_default=False),
)
NAMES = tuple(part.name for part in PARTS)


def run_part(part: Part, call: Call, log: Path) -> Result:
    """Runs a part until it ends or its time is up; its output goes to `log`."""
    words = part.command(call)
    result = Result(part.name, "failed", limit=call.seconds, command=words)
    begin = time.monotonic()
    with log.open("wb") as file:
        try:
            process = subprocess.Popen(
                words, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                env=_environment(),
            )  # fmt: skip
        except OSError as error:
            file.write(f"{error}\n".encode())
            return result
        try:
            result.code = process.wait(call.seconds)
        except subprocess.TimeoutExpired:
            result.outcome = "timed out"
        finally:
            _end(process)
    result.seconds = time.monotonic() - begin
    if result.code == 0:
        result.outcome = "passed"
    return result


def _environment() -> Mapping[str, str]:
    mine = {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "PYTHONUNBUFFERED": "1",
        "TRITON_CACHE_DIR": str(CACHE / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(CACHE / "inductor"),
    }
    return {**mine, **os.environ, "PYTHONPATH": mine["PYTHONPATH"]}


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


def tested(path: Path) -> dict[str, Any] | None:
    """What a file of pytest's results says: counts, and what failed, with the reason."""
    if not path.exists():
        return None
    found = {"passed": 0, "failed": 0, "skipped": 0, "seconds": 0.0}
    failures = []
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        outcome = "passed"
        for kind in ("failure", "error", "skipped"):
            problem = case.find(kind)
            if problem is not None:
                outcome = "skipped" if kind == "skipped" else "failed"
                if outcome == "failed":
                    name = f"{case.get('classname', '')}.{case.get('name', '')}"
                    told = (problem.get("message") or "").splitlines() or [""]
                    failures.append(f"{name}: {told[0]}")
                break
        found[outcome] += 1
        found["seconds"] += float(case.get("time", 0.0))
    return {**found, "failures": failures}


def summary(record: dict[str, Any]) -> str:
    """A page of markdown."""
    lines = [
        f"# The first minutes on {record['device']}, {record['date'][:10]}, commit "
        f"{record['commit']}",
        "",
        "| part | outcome | seconds | limit |",
        "|-|-|-:|-:|",
        *(
            f"| {part['name']} | {part['outcome']} | {part['seconds']:.0f} | {part['limit']:.0f} |"
            for part in record["parts"]
        ),
    ]
    for part in record["parts"]:
        if part["tests"] is not None:
            counts = part["tests"]
            lines += [
                "",
                f"{part['name']}: {counts['passed']} passed, {counts['failed']} failed, "
                f"{counts['skipped']} skipped",
                *(f"* {failure}" for failure in counts["failures"][:TOLD]),
            ]
    for part in record["parts"]:
        if part["told"]:
            lines += ["", f"## {part['name']}: {part['outcome']}", "", "```", *part["told"], "```"]
    return "\n".join(lines)


def keep(record: dict[str, Any], folder: Path, out: Path) -> None:
    """Writes the three files; each is whole at any time."""
    out.mkdir(parents=True, exist_ok=True)
    write(record, out / "gpu-first.json.partial").replace(out / "gpu-first.json")
    partial = out / "summary.md.partial"
    partial.write_text(summary(record) + "\n", encoding="utf-8")
    partial.replace(out / "summary.md")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(folder, arcname="results")
    partial = out / "results.tar.gz.partial"
    partial.write_bytes(packed.getvalue())
    partial.replace(out / "results.tar.gz")


def run_all(parts: Sequence[Part], args: argparse.Namespace, record: dict[str, Any]) -> None:
    """Runs the parts in order, as far as the time goes; adds a result of each to the record."""
    end = time.monotonic() + args.seconds
    with tempfile.TemporaryDirectory(prefix="gpu-first-") as name:
        folder = Path(name)
        for part in parts:
            left = end - time.monotonic() - RESERVE
            if left < min(part.needs, args.seconds / 4):
                result = Result(part.name, "no time was left")
            else:
                out = folder / part.name
                out.mkdir()
                call = Call(args.device, args.tiny, args.batch, out, min(part.limit, left))
                log = out / "output.txt"
                print(f"{part.name}: at most {call.seconds:.0f} s", flush=True)
                result = run_part(part, call, log)
                text = log.read_text(encoding="utf-8", errors="replace")
                result.told = [line[:300] for line in text.splitlines()[-TOLD:]]
                result.tests = tested(out / "tests.xml")
            print(f"{part.name}: {result.outcome}, {result.seconds:.0f} s", flush=True)
            record["parts"].append(asdict(result))
            keep(record, folder, args.out)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_first", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=NAMES,
        help="default: "
        + ", ".join(part.name for part in PARTS if part.by_default)
        + ", as far as the time goes",
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="for all of them; default: %(default)s"
    )
    parser.add_argument("--batch", type=int, help="clips; default: 128, and 32 of ViT-g's steps")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to rehearse")
    parser.add_argument("--out", type=Path, help="folder; default: $OUT")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    parser = arguments()
    args = parser.parse_args(words)
    if args.out is None and not os.environ.get("OUT"):
        parser.error("where should the results go? give --out FOLDER, or set $OUT")
    args.out = args.out or Path(os.environ["OUT"])
    parts = [p for p in PARTS if (p.name in args.parts if args.parts else p.by_default)]
    record: dict[str, Any] = {
        "kind": "first minutes",
        # This process leaves the GPU alone: its parts break it or not
        **environment("cpu", ["python", "-m", "benchmarks.gpu_first", *words]),
        "device": args.device,
        "parts": [],
    }
    run_all(parts, args, record)
    print(f"\n{summary(record)}\n\nwritten: {args.out}/summary.md, gpu-first.json, results.tar.gz")
    return int(any(part["outcome"] != "passed" for part in record["parts"]))


if __name__ == "__main__":
    sys.exit(main())
