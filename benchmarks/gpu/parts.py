"""What a session on a GPU runs, part by part, in order of worth: names, commands, time limits."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common.card import giant_batch

SANITIZER = "compute-sanitizer"
TABLE = "attention-table.json"  # that one part measures and the later ones go by


@dataclass(frozen=True)
class Call:
    """What a part's command depends on.

    Attributes:
        device: "cuda", or "cpu" to rehearse.
        tiny: tiny shapes, to rehearse.
        batch: clips of every part; None: each part's own.
        out: the part's folder.
        shared: a folder of all parts of this run.
        seconds: that the part may take.
        card: as :func:`benchmarks.common.card.card` found it.
    """

    device: str
    tiny: bool
    batch: int | None
    out: Path
    shared: Path
    seconds: float
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def table(self) -> Path:
        """Where this run keeps its table of attention."""
        return self.shared / TABLE


Command = Callable[[Call], list[str]]


@dataclass(frozen=True)
class Part:
    """One process.

    Attributes:
        name: as given to --parts.
        command: what to run.
        limit: seconds after which it is ended.
        needs: seconds below which it is not begun.
        first: whether it runs where no parts are named.
        program: what it needs besides Python; not to rehearse.
    """

    name: str
    command: Command
    limit: float
    needs: float
    first: bool = False
    program: str | None = None


def _python(*words: str) -> list[str]:
    return [sys.executable, *words]


def _sequence(*steps: str) -> list[str]:
    return ["sh", "-c", " && ".join(steps)]


def _look(call: Call) -> list[str]:
    """Passes where torch works on the device, whatever else is missing."""
    works = f"import torch; print(torch.ones(2, device={call.device!r}).sum())"
    python = shlex.quote(sys.executable)
    steps = (f"{python} -m videomae_fast doctor", "nvidia-smi", f"{python} -c {shlex.quote(works)}")
    return ["sh", "-c", "; ".join(steps)]


def _build(call: Call) -> list[str]:
    """The CPU's library, which the data path uses; a clone has none. A rehearsal configures it."""
    folder = call.out / "build" if call.tiny else Path("build/gpu-first")
    configure = f"cmake -S csrc -B {shlex.quote(str(folder))} -DCMAKE_BUILD_TYPE=Release"
    if call.tiny:
        return _sequence(configure)
    build, install = f"cmake --build {folder} --parallel 8", f"cmake --install {folder} --prefix ."
    return _sequence(configure, build, install)


# On a CPU the interpreter takes long: one test of each file stands for it.
_FIRST = (
    "tests/ops/test_attention.py", "tests/ops/test_add_layer_norm.py",
    "tests/kernels/test_repeated.py",
)  # fmt: skip
_REST = ("tests/ops", "tests/kernels", "tests/models/test_golden.py", "tests/gpu")
_REHEARSED = " or ".join(
    ("test_no_clips", "test_no_rows", "test_what_moves", "gather_copies", "beyond")
)


def _tests(*paths: str, besides: tuple[str, ...] = ()) -> Command:
    """A test that breaks the GPU's context ends its process: the others have their own."""

    def command(call: Call) -> list[str]:
        words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={call.out}/tests.xml"]
        words += [*paths, *(f"--ignore={path}" for path in besides)]
        if call.tiny:
            # As with --gpu: the library is not built yet
            chosen = ("-m", "not without_gpu", "-k", _REHEARSED)
            return _python(*words, "--tell-failures", *chosen)
        processes = max(1, min(14, (os.cpu_count() or 2) - 2))
        return _python(*words, "--gpu", "-n", str(processes))

    return command


# Of attention: the backward pass that hands sums over in shared memory; every bf16 shape.
_RACES = "test_repeated_runs_are_equal and pass"  # of short sequences: two passes, one
_BOUNDS = "test_against_truth and bfloat16 or test_gradients_through_the_op"


def _sanitized(tool: str, chosen: str) -> Command:
    """Tests of attention under compute-sanitizer; without it in a rehearsal.

    torch's cache of GPU memory is off: it would hide what is written behind a tensor's end.
    """

    def command(call: Call) -> list[str]:
        xml = f"--junitxml={call.out}/tests.xml"
        words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", xml, _FIRST[0]]
        if call.tiny:
            few = ("-m", "not without_gpu", "-k", "test_no_clips")
            return _python(*words, "--tell-failures", *few)
        check = [SANITIZER, "--tool", tool, "--error-exitcode", "1"]
        return [
            "env", "PYTORCH_NO_CUDA_MEMORY_CACHING=1", *check,
            *_python(*words, "--gpu", "-x", "-k", chosen),
        ]  # fmt: skip

    return command


def _measured(name: str, *words: str, tiny: tuple[str, ...] = ("--repeats", "2")) -> Command:
    def command(call: Call) -> list[str]:
        found = ["-m", "benchmarks", name, "--device", call.device, "--out", str(call.out)]
        return _python(*found, *words, *(["--tiny", *tiny] if call.tiny else []))

    return command


def _batched(name: str, batch: int, *words: str) -> Command:
    def command(call: Call) -> list[str]:
        return [*_measured(name, *words)(call), "--batch", str(call.batch or batch)]

    return command


def _attention(call: Call) -> list[str]:
    return [*_batched("attention-choice", 128, "--repeats", "10")(call), "--table", str(call.table)]


def _profile(size: str) -> Command:
    def command(call: Call) -> list[str]:
        batch = giant_batch(call.card) if size == "giant" else 128
        return _batched("kernel-profile", batch, "--size", size)(call)

    return command


def _steps(size: str, batch: int | None, *names: str, words: tuple[str, ...] = ()) -> Command:
    """Contenders one after another; batch None: what of ViT-g fits the card, else 128."""

    def command(call: Call) -> list[str]:
        clips = batch or (giant_batch(call.card) if size == "giant" else 128)
        found = _batched("ceilings", clips, "--parts", "baselines", "--size", size, "--one-by-one")
        often = ["--repeats", "2" if call.tiny else "9", "--warmup", "2"]
        # It ends by itself, with all that it timed, before it is ended.
        time = ["--seconds", f"{0.7 * call.seconds:.0f}"]
        return [*found(call), *often, *time, *words, "--variants", *names]

    return command


def _full_giant(call: Call) -> list[str]:
    batch = giant_batch(call.card, full=True)
    return _steps("giant", batch, "ours, captured, shadow weights", "strong")(call)


def _largest_giant(call: Call) -> list[str]:
    """A batch of 128 on a card of 80 GB: by making norms and GELU again."""
    return _steps("giant", 128, "ours, captured, shadow weights, recomputing")(call)


def _fp8_giant(call: Call) -> list[str]:
    """What fp8 gains for ViT-g, at the largest batch that bf16 has room for."""
    plain = "ours, captured, shadow weights"
    return _steps("giant", giant_batch(call.card, full=True), plain, f"{plain}, fp8")(call)


def _study(name: str, *words: str) -> Command:
    def command(call: Call) -> list[str]:
        return [*_measured(name, *words)(call), "--seconds", f"{0.7 * call.seconds:.0f}"]

    return command


def _launches(call: Call) -> list[str]:
    found = _batched("launch-choice", 128, "--size", "base", "--repeats", "7")(call)
    if call.tiny:  # in the interpreter; one op, for it takes long
        return ["env", "TRITON_INTERPRET=1", *found, "--ops", "token_gather"]
    return found


def _losses(call: Call) -> list[str]:
    words = ["--size", "small", "--batch", "32", "--steps", "300"]
    return _measured("loss-curves", *words, tiny=("--steps", "4", "--batch", "2"))(call)


def _read(call: Call) -> list[str]:
    words = ["-m", "benchmarks", "reading", "--device", call.device, "--out", str(call.out)]
    few = ["--count", "1", "--length", "2", "--rounds", "1", "--pipeline-seconds", "0"]
    return _python(*words, *(few if call.tiny else []))


_EAGER = (
    "ours, eager", "ours, captured", "ours, captured, shadow weights", "official repaired, eager",
    "official as shipped, eager",
)  # fmt: skip
_COMPILED = (
    "ours, captured, shadow weights",
    "strong",
    "ours, compiled",
    "ours, compiled and captured",
    "official repaired, compiled",
    "official as shipped, compiled",
)
_OURS = ("ours, captured, shadow weights", "ours, captured", "ours, eager", "strong")
_HUGGING_FACE = (
    "ours, captured, shadow weights",
    "Hugging Face repaired",
    "Hugging Face as shipped",
)
_OPS = ("--no-compile", "--repeats", "10", "--size")

# In order of worth. Limits are several times what is expected; they add up to more than there is.
PARTS = (
    Part("environment", _look, 60, 5, first=True),
    Part("tests-first", _tests(*_FIRST), 200, 40, first=True),
    Part("profile-base", _profile("base"), 80, 25, first=True),
    Part("profile-giant", _profile("giant"), 100, 40, first=True),
    Part("ceilings", _batched("ceilings", 128, "--parts", "copy", "matmul"), 60, 15, first=True),
    Part("attention", _attention, 120, 30, first=True),
    Part("step-base", _steps("base", None, *_EAGER), 120, 40, first=True),
    Part("step-giant", _steps("giant", None, *_EAGER), 150, 60, first=True),
    Part("racecheck", _sanitized("racecheck", _RACES), 120, 20, True, SANITIZER),
    Part("memcheck", _sanitized("memcheck", _BOUNDS), 150, 20, True, SANITIZER),
    Part("tests", _tests(*_REST, besides=_FIRST), 320, 40, first=True),
    Part("build", _build, 90, 10, first=True),
    # The others in the order in which the README's plan names them.
    Part("losses", _losses, 200, 60),
    Part("compiled-base", _steps("base", None, *_COMPILED), 500, 200),
    Part("giant-full", _full_giant, 300, 120),
    Part("giant-128", _largest_giant, 150, 60),
    Part("giant-fp8", _fp8_giant, 200, 80),
    Part("small-batch-8", _steps("base", 8, *_OURS), 120, 40),
    Part("small-batch-32", _steps("base", 32, *_OURS), 120, 40),
    Part("paper", _study("paper", "--sizes", "base", "giant"), 400, 120),
    Part(
        "hugging-face",
        _steps("base", None, *_HUGGING_FACE, words=("--masking", "encoder-only")),
        120,
        40,
    ),
    Part("drop-in", _study("drop-in", "--size", "base"), 200, 60),
    Part("data", _read, 200, 40),
    Part("ops-base", _batched("ops", 128, *_OPS, "base"), 120, 30),
    Part("ops-giant", _batched("ops", 64, *_OPS, "giant"), 150, 40),
    Part("launches", _launches, 300, 60),
    Part("compiled-giant", _steps("giant", None, *_COMPILED[:3]), 520, 180),
    Part("step-small", _steps("small", None, *_OURS), 120, 40),
    Part("step-large", _steps("large", 64, *_OURS), 200, 60),
    Part("step-huge", _steps("huge", 32, *_OURS), 250, 60),
    Part("data-tests", _tests("tests/data/test_device_decoders.py"), 120, 30),
)
NAMES = tuple(part.name for part in PARTS)
