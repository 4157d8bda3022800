"""Compiles what training steps launch for three GPUs, without one, and holds it to a budget.

The launches of all official sizes are recorded from the launchers themselves. Each different one is
compiled for sm_90, those of ViT-g for sm_80 and sm_100 too. Shared memory must fit the device, and
what `aot_budget.json` has of this version of Triton may only fall: registers, bytes that are
spilled, and for bf16 on sm_90 barriers within a loop and instructions per byte that is moved. On
sm_90 a kernel that chooses its number of programs must fill a GPU at most once, or often. Integers
that are 1 and 64-bit strides must compile.

    python tests/kernels/aot.py             check
    python tests/kernels/aot.py --record    write the budgets of this version of Triton anew
    python tests/kernels/aot.py --only NAME [--arch 90]   show the launches whose names hold NAME

It runs in a process without ``TRITON_INTERPRET``. A check compiles what is not, by its source,
options and compiler, what was compiled for the record: all after a change of Triton, only what a
change of a kernel concerns otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import inspect
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.common import launches, sass  # noqa: E402
from benchmarks.common.launches import ARCHS, Launch, launch_of  # noqa: E402
from benchmarks.ops.step_launches import (  # noqa: E402
    choice_launches,
    option_launches,
    step_launches,
    update_launches,
)
from tests.kernels.budget import Budget, Usage  # noqa: E402
from videomae_fast.models.config import SIZES  # noqa: E402

BATCH = 32
BATCHES = (BATCH, 128, 256)
LOSSES = ("pixel_mse", "pixel_mse_with_gradient", "pixel_mse_backward")

ONLY_90 = ("one_pass_attention.one_pass_backward",)  # elsewhere it is two passes


@dataclass(frozen=True)
class Case:
    """A launch under the name of the first step that has it.

    Attributes:
        archs: what it is compiled for.
        varied: whether its variants are compiled: ViT-B has all kernels and all options.
    """

    name: str
    launch: Launch
    archs: tuple[int, ...] = (90,)
    varied: bool = False


def steps() -> Iterator[tuple[str, Launch]]:
    """(name, launch) of all that is compiled; many are launched by several steps."""
    half, single = torch.bfloat16, torch.float32
    for size in SIZES:
        yield from _steps(size, BATCH).items()
    for size in ("base", "giant"):
        yield from _named(size, "bf16", option_launches(size, BATCH, half))
    for size in ("base", "huge", "giant"):  # all widths of encoders' heads
        for name, launch in _named(size, "bf16", choice_launches(size, BATCH, half)):
            yield f"to choose: {name}", launch
    for size in ("small", "base", "giant"):  # all widths of decoders
        yield from _named(size, "fp32", step_launches(size, BATCH, single))
    heads = ("packed_attention", "packed_attention_backward")  # ViT-H's are 80 wide, unlike others
    yield from _named("huge", "fp32", step_launches("huge", BATCH, single, heads))
    yield from _named("giant", "fp32", option_launches("giant", BATCH, single, LOSSES))
    yield from _named("base", "bf16", update_launches("base"))


@cache
def _steps(size: str, batch: int) -> dict[str, Launch]:
    """Launches of a step in bf16, by name."""
    return dict(_named(size, "bf16", step_launches(size, batch, torch.bfloat16)))


def _named(
    size: str, dtype: str, launches: Iterable[tuple[str, Launch]]
) -> Iterator[tuple[str, Launch]]:
    """Names that nothing else has: an op may launch a kernel twice."""
    count: Counter[str] = Counter()
    for where, launch in launches:
        name = f"{size} {dtype}, {where}: {launch.name}"
        count[name] += 1
        yield (name if count[name] == 1 else f"{name} ({count[name]})"), launch


def cases() -> dict[str, Case]:
    """Each different binary once, by its launch's key; every kernel has one."""
    found: dict[str, Case] = {}
    for name, launch in steps():
        case = found.setdefault(launch.key, Case(name, launch))
        if (name.startswith("giant bf16") and launch.name not in ONLY_90) or "two passes" in name:
            e4m3 = "*fp8e4nv" in launch.signature.values()  # which sm_80 has not
            found[launch.key] = replace(case, archs=ARCHS[1:] if e4m3 else ARCHS)
        elif name.startswith("base bf16"):
            found[launch.key] = replace(case, varied=True)
    for each in choosing():
        for batch, launch in each.launches.items():
            name = f"{each.name}, batch {batch}"
            found.setdefault(launch.key, Case(name, launch))
    names = [case.name for case in found.values()]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, f"two launches are called {sorted(twice)}"
    missing = kernels() - {case.launch.name for case in found.values()}
    assert not missing, f"no recorded step launches {sorted(missing)}: give it to step_launches.py"
    return found


def kernels() -> set[str]:
    """Names of all kernels of the folder; the functions that they consist of are left out."""
    from triton import JITFunction

    found = set()
    for path in sorted((ROOT / "kernels").glob("*.py")):
        module = importlib.import_module(f"videomae_fast.kernels.{path.stem}")
        for value in vars(module).values():
            mine = isinstance(value, JITFunction) and value.fn.__module__ == module.__name__
            if mine and "tl.program_id" in value.src:
                found.add(f"{path.stem}.{value.fn.__name__}")
    return found


@dataclass(frozen=True)
class Choosing:
    """Launches, by batch, of a kernel that chooses its number of programs."""

    name: str
    launches: dict[int, Launch]


def choosing() -> list[Choosing]:
    """Those whose programs don't double with the batch."""
    found = []
    for size in SIZES:
        steps = {batch: _steps(size, batch) for batch in BATCHES}
        for name in steps[BATCH]:
            launches = {batch: steps[batch][name] for batch in BATCHES}
            if launches[256].programs < 1.5 * launches[128].programs:
                found.append(Choosing(name, launches))
    return found


def partial_waves(resident: Callable[[Launch], int]) -> dict[str, float]:
    """How often the programs fill a GPU, where that is more than once and less than four times.

    Then many multiprocessors are idle in the last round. Of the batches the worst.

    Args:
        resident: programs of a launch that a multiprocessor holds at once.
    """
    found: dict[str, float] = {}
    for each in choosing():
        for launch in each.launches.values():
            waves = round(sass.waves(launch.programs, resident(launch)), 2)
            if 1 < waves < 4:
                found[each.name] = max(found.get(each.name, 0.0), waves)
    return found


def variants(launch: Launch) -> Iterator[tuple[str, Launch]]:
    """Integers that are 1, which the compiler then knows, and strides that need 64 bits."""
    integers = [name for name, kind in launch.signature.items() if kind in ("i32", "i64")]
    strides = [name for name in integers if "stride" in name]
    for name in integers:
        yield f"{name} = 1", launch.given(**{name: 1})
    if strides:
        yield "64-bit strides", launch.given(**dict.fromkeys(strides, 2**31 + 16))


def refused_variants(launches: Iterable[tuple[str, Launch]]) -> list[str]:
    """What of the launches' variants does not compile, as far as Triton's language goes."""
    wrong = []
    for name, launch in launches:
        for what, variant in variants(launch):
            try:
                variant.checked(90)
            except Exception as error:  # whatever the compiler raises is the finding
                wrong.append(f"{name}, {what}: {type(error).__name__}: {str(error)[:300]}")
    return wrong


def measured(launch: Launch, arch: int, *, code: bool) -> Usage:
    """What one launch takes on one architecture; `code`: what its machine code says, too."""
    try:
        found = sass.binary(launch.compiled(arch), arch)
    except Exception as error:  # whatever the compiler raises is the finding
        return Usage(error=f"{type(error).__name__}: {str(error)[:300]}")
    usage = Usage(found.registers, found.stack, found.shared, found.resident_programs)
    return usage.with_code(found.loop_barriers, found.per_byte) if code else usage


@cache
def _reading() -> str:
    """How launches are varied, and counts are read from binaries."""
    files = [Path(inspect.getfile(module)).read_bytes() for module in (launches, sass)]
    return hashlib.sha256(b"".join(files) + inspect.getsource(variants).encode()).hexdigest()


def key_of(launch: Launch, arch: int) -> str:
    """Another one where a binary, its variants or what is read from it could be another."""
    return hashlib.sha256((launch.cache_key(arch) + _reading()).encode()).hexdigest()[:16]


_CASES: list[Case] = []  # of the processes that compile, which are forks
Job = tuple[int, int]
"""(number of a case, architecture)."""


def known(budget: Budget, keys: Mapping[Job, str]) -> dict[Job, Usage]:
    """What was recorded of the very same binaries."""
    found = {job: budget.known(_CASES[job[0]].name, job[1], key) for job, key in keys.items()}
    return {job: usage for job, usage in found.items() if usage is not None}


def _job(job: Job) -> Usage:
    case, arch = _CASES[job[0]], job[1]
    # Reading takes a third of a second: the precision and the GPU that training has
    return measured(case.launch, arch, code=arch == 90 and " bf16, " in case.name)


def _refused(number: int) -> list[str]:
    case = _CASES[number]
    return refused_variants([(case.name, case.launch)])


def controls() -> list[str]:
    """Kernels that are wrong on purpose: which of them were not caught."""
    from tests.kernels.wrong_kernels import spilling, uncast

    values = torch.empty(8192, dtype=torch.float32, device="meta")
    spills = launch_of(spilling, (1,), (values, values), {"SIZE": 8192, "num_warps": 1})
    one = launch_of(uncast, (1,), (values, 3), {"num_warps": 1})
    wrong = []
    found = [("spills", 90, measured(spills, 90, code=False))]
    if not Budget("", {"spills": {"90": {"registers": 255}}}, {}).exceeded(found):
        wrong.append("the kernel that spills on purpose was not caught")
    others = (spills, replace(spills, options={"num_warps": 2}), spills.given(SIZE=4096), one)
    if len({key_of(launch, arch) for launch in others for arch in (90, 100)}) != 2 * len(others):
        wrong.append("different binaries have one key")
    if len(refused_variants([("", one)])) != 1:
        wrong.append("the kernel that can't be compiled for 1 was not caught")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--record", action="store_true", help="write the budgets anew")
    parser.add_argument(
        "--allow-growth", action="store_true", help="with --record: also what has grown"
    )
    parser.add_argument("--only", default="", help="part of the names to compile; shows them")
    parser.add_argument("--arch", type=int, choices=ARCHS, default=None)
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    chosen = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET", "0") != "0":
        raise SystemExit("unset TRITON_INTERPRET: its interpreter compiles nothing")
    partial = bool(chosen.only or chosen.arch)
    if partial and chosen.record:
        raise SystemExit("--record takes all cases: leave out --only and --arch")
    if chosen.allow_growth and not chosen.record:
        raise SystemExit("--allow-growth says what --record may write: give it too")

    found = cases()
    _CASES.extend(found.values())
    archs = [chosen.arch] if chosen.arch else ARCHS
    jobs = [
        (number, arch)
        for number, case in enumerate(_CASES)
        if chosen.only in case.name
        for arch in archs
        if arch in case.archs or arch == chosen.arch
    ]
    varied = [] if partial else [i for i, case in enumerate(_CASES) if case.varied]
    budget = Budget.read()
    keys = {(number, arch): key_of(_CASES[number].launch, arch) for number, arch in jobs}
    of_varied = {_CASES[number].name: keys[number, 90] for number in varied}
    usages: dict[Job, Usage] = {}
    if not (partial or chosen.record):
        usages = known(budget, keys)
        varied = [i for i in varied if budget.varied.get(_CASES[i].name) != keys[i, 90]]
    new = [job for job in jobs if job not in usages]
    with multiprocessing.get_context("fork").Pool(chosen.workers) as pool:
        for job, usage in zip(new, pool.map(_job, new, chunksize=2), strict=True):
            usages[job] = replace(usage, key=keys[job])
        refused = [line for lines in pool.map(_refused, varied) for line in lines]

    results = [(_CASES[number].name, arch, usages[number, arch]) for number, arch in jobs]
    wrong = [line for name, arch, usage in results for line in usage.problems(name, arch)]
    if partial:
        for name, arch, usage in results:
            print(f"{name} sm_{arch}", usage)
        wrong += budget.exceeded(results)
    else:
        resident = {
            _CASES[number].launch.key: usage.resident
            for (number, arch), usage in usages.items()
            if arch == 90
        }
        waves = partial_waves(lambda launch: resident[launch.key])
        if chosen.record:
            whole = {} if refused else of_varied
            wrong += budget.record(results, waves, whole, allow_growth=chosen.allow_growth)
        else:
            wrong += budget.exceeded(results, waves)
        wrong += [f"does not compile: {line}" for line in refused] + controls()
    told = f"{len(results)} binaries, {len(new)} of them compiled, none over its budget"
    print("\n".join(wrong) or told)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
