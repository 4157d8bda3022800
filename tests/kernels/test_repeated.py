"""Every kernel of a step a hundred times over the same inputs: the same bits each time.

An error that moves between runs is a race: a barrier that is missing, a value read before it is
written. On a GPU the shapes are those of ViT-B and ViT-g, the cache is emptied before every other
run; in the interpreter, which runs one program after the other, twice at a tiny shape, so that
what is tested here is known to run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.bits import bits
from tests.support.interpreter import ON_GPU
from videomae_fast import MAEConfig
from videomae_fast.ops.registry import REGISTRY

REPEATS = 100 if ON_GPU else 2
# (size, clips); "tiny" is benchmarks.common.workload.TINY
SHAPES = [("base", 16), ("giant", 4)] if ON_GPU else [("tiny", 2)]
OPS = sorted(name for name, op in REGISTRY.items() if "triton" in op.backends)
WIDE = ("add_layer_norm_fp8", "bias_gelu_fp8", "quantize_rows")  # for blocks wider than ViT-B's
MADE_ELSEWHERE = ("mask_indices",)  # integers only: its own tests compare them with the reference
SLOW_TO_INTERPRET = (
    "augmented_views", "bilinear_resize", "crop_resize", "hsv_jitter", "pixel_mse",
    "pixel_mse_with_gradient", "pixel_mse_backward",
)  # fmt: skip


def differing(
    run: Callable[[], Any], repeats: int, between: Callable[[int], Any] = lambda _: None
) -> list[int]:
    """How many values of each result ever differed from the first run's."""

    def results() -> Sequence[Tensor]:
        found = run()
        return [found] if isinstance(found, Tensor) else list(found)

    first = [bits(tensor).clone() for tensor in results()]
    wrong = [torch.zeros_like(tensor, dtype=torch.bool) for tensor in first]
    for number in range(1, repeats):
        between(number)
        for tensor, truth, mark in zip(results(), first, wrong, strict=True):
            mark |= bits(tensor) != truth
    return [int(mark.sum()) for mark in wrong]


@pytest.fixture(scope="module")
def cases():
    """A function (size, clips) -> the ops' cases there, made once."""
    made: dict[Any, Any] = {}

    def of(size: str, clips: int):
        from benchmarks.common.workload import TINY, Workload
        from benchmarks.ops.cases import op_cases

        if (size, clips) not in made:
            config = TINY if size == "tiny" else MAEConfig.from_size(size)
            device, dtype = ("cuda", torch.bfloat16) if ON_GPU else ("cpu", torch.float32)
            made[size, clips] = op_cases(Workload(config, clips, device=device), dtype)
        return made[size, clips]

    return of


def named() -> Iterator[Any]:
    """The ops at their shapes; those that take seconds in the interpreter on a GPU only."""
    slow = [pytest.mark.gpu, pytest.mark.skipif(not ON_GPU, reason="needs a CUDA device")]
    for name in OPS:
        for shape in SHAPES:
            if name not in MADE_ELSEWHERE and not (name in WIDE and shape[0] == "base"):
                yield pytest.param(name, shape, marks=slow if name in SLOW_TO_INTERPRET else [])


@pytest.mark.parametrize(("name", "shape"), list(named()))
def test_every_run_gives_the_same_bits(name, shape, cases):
    found = [case for case in cases(*shape) if case.op == name]
    assert found, f"{name} has no case in benchmarks/ops/cases.py"
    scratch = torch.zeros(
        2**28 if ON_GPU else 1, dtype=torch.uint8, device="cuda" if ON_GPU else "cpu"
    )
    for case in found:
        torch.manual_seed(0)
        args = case.args()
        backend = REGISTRY[name].backends["triton"]
        assert backend.why_not(*args) is None
        wrong = differing(
            lambda run=backend.run, args=args: run(*args),
            REPEATS,
            lambda number: scratch.zero_() if number % 2 else None,
        )
        assert not any(wrong), f"{case.name}: values that moved, by result: {wrong}"


def test_what_moves_is_found():
    count = iter(range(10))

    def run() -> tuple[Tensor, Tensor]:
        moved = torch.zeros(4)
        moved[next(count) % 2] = float("nan")
        return torch.full((3,), float("nan")), moved

    assert differing(run, 5) == [0, 2]
    assert differing(lambda: torch.full((2,), float("nan")), 3) == [0]
