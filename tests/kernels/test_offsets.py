"""Views whose clips, tokens or rows lie more than 2³¹ values apart: the same bits as dense ones.

An offset that is computed in 32 bits is then negative. What lies there is mapped too, and empty, so
that a wrong offset is a wrong value and not the end of the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.bits import bits
from videomae_fast import MAEConfig
from videomae_fast.ops.registry import REGISTRY

pytestmark = pytest.mark.without_gpu
REACH = 2**31
CONFIG = MAEConfig(
    image_size=32, frames=4, width=16, depth=1, heads=2,
    decoder_width=16, decoder_heads=2, decoder_depth=1,
)  # fmt: skip


# Integers only; whole clips, by a pointer each; pixel_mse_with_gradient's kernel; vectors only
LEFT_OUT = ("mask_indices", "augmented_views", "crop_resize", "pixel_mse", "packed_bias")
OPS = sorted({name for name, op in REGISTRY.items() if "triton" in op.backends} - {*LEFT_OUT})


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    """Each op once, where it comes first; imported here, after the interpreter."""
    from benchmarks.common.workload import Workload
    from benchmarks.ops.cases import op_cases

    found: dict[str, Any] = {}
    for case in op_cases(Workload(CONFIG, 2), torch.float32):
        found.setdefault(case.op, case)
    return found


def far_apart(x: Tensor, axis: int, file: Path) -> Tensor:
    """The same values, `REACH` of them between the first and the last along an axis."""
    order = [axis, *(i for i in range(x.dim()) if i != axis)]
    dense = x.permute(order).contiguous()
    step = -(-REACH // (x.shape[axis] - 1)) // 16 * 16 + 16
    strides = [step, *dense.stride()[1:]]
    memory = torch.from_file(str(file), shared=True, size=2 * REACH + 2**20, dtype=x.dtype)
    view = memory.as_strided(dense.shape, strides, REACH)
    view.copy_(dense)
    return view.permute([order.index(i) for i in range(x.dim())])


def far_arguments(args: tuple[Any, ...], file: Path) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """(what, arguments) with one tensor's clips, or tokens, or frames, or rows far apart."""
    for place, value in enumerate(args):
        if not isinstance(value, Tensor) or value.dim() < 3:
            continue
        for axis in range(value.dim() - 1):
            pixels = value.dtype == torch.uint8 and axis == 3
            if value.shape[axis] > 1 and not pixels:
                far = far_apart(value, axis, file)
                yield f"argument {place}, axis {axis}", (*args[:place], far, *args[place + 1 :])
                file.unlink()


@pytest.mark.parametrize("name", OPS)
def test_far_views_are_read_where_they_are(
    name: str, cases: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    args = cases[name].args()
    run = REGISTRY[name].backends["triton"].run
    expected = outputs(run(*args))
    tried = 0
    for what, changed in far_arguments(args, tmp_path / "memory"):
        tried += 1
        for mine, theirs in zip(outputs(run(*changed)), expected, strict=True):
            assert torch.equal(bits(mine), bits(theirs)), what
    assert tried


def outputs(found: Any) -> tuple[Tensor, ...]:
    return (found,) if isinstance(found, Tensor) else tuple(found)


def test_offsets_of_32_bits_are_caught(tmp_path: Path) -> None:
    x = torch.randn(3, 5, 8)
    far = far_apart(x, 1, tmp_path / "memory")
    assert torch.equal(far, x)
    wrapped = (4 * far.stride(1) + 2**31) % 2**32 - 2**31
    assert wrapped < 0
    assert far.storage_offset() + wrapped >= 0  # mapped
