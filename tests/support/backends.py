"""The backends that the tests of ops run over, and how close to a truth they have to come."""

from __future__ import annotations

import os
from collections import namedtuple
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

from videomae_fast.ops._native.loader import SWITCH as NATIVE_SWITCH

_no_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
_switched_off = pytest.mark.skipif(
    os.environ.get(NATIVE_SWITCH) == "0", reason="the native library is switched off"
)
REFERENCE = pytest.param("reference", marks=pytest.mark.without_gpu)
# Where the library is missing and nobody switched it off, its tests fail: with the reason.
NATIVE = pytest.param("native", marks=[_switched_off, pytest.mark.without_gpu])
TRITON = pytest.param("triton", marks=_no_triton)
KERNELS = [NATIVE, TRITON]
"""What is compared with the reference."""
ALL = [REFERENCE, NATIVE, TRITON]

FLOATS = [torch.float32, torch.bfloat16, torch.float16]
# One unit in the last place of each dtype, relative; the interpreter cuts fp32 -> bf16 off instead
# of rounding it.
_UNIT = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}


def named(op: str, *args: Any) -> Any:
    """What a launcher gets: an op's arguments with their names."""
    schema = getattr(torch.ops.videomae_fast, op).default._schema.arguments[:-1]
    return namedtuple(op, [one.name for one in schema])(*args)


def with_dtypes(native: list[torch.dtype], triton: list[torch.dtype] = FLOATS) -> list[Any]:
    """Parameters "impl, dtype" of the compiled backends: each with what it takes."""
    found = []
    for param, dtypes in ((NATIVE, native), (TRITON, triton)):
        (impl,) = param.values
        for dtype in dtypes:
            name = f"{impl}-{str(dtype).removeprefix('torch.')}"
            found.append(pytest.param(impl, dtype, marks=param.marks, id=name))
    return found


def assert_accurate(out: Tensor, reference: Tensor, truth: Tensor, absolute: float = 1e-6) -> None:
    """error <= the reference's error + tolerance, element by element.

    Args:
        out: a backend's.
        reference: of the same dtype.
        truth: in fp64.
        absolute: the tolerance is one unit in the last place of the dtype, relative to the truth,
            plus this, for sums that cancel.
    """
    assert out.dtype == reference.dtype
    assert out.shape == reference.shape == truth.shape
    exact = truth.double()
    error = (out.double() - exact).abs()
    theirs = (reference.double() - exact).abs()
    allowed = theirs + exact.abs() * _UNIT[out.dtype] + absolute
    assert out.isfinite().all(), "values missing or not finite"
    worst = int((error - allowed).argmax()) if error.numel() else 0
    assert (error <= allowed).all(), (
        f"error {error.flatten()[worst]:.3g}, allowed {allowed.flatten()[worst]:.3g} "
        f"at {worst}; truth {exact.flatten()[worst]:.6g}"
    )


def doubled(tensors: Any) -> Any:
    """The same in fp64, what is no floating tensor as it is."""

    def double(value: Any) -> Any:
        is_float = isinstance(value, Tensor) and value.is_floating_point()
        return value.double() if is_float else value

    return type(tensors)(map(double, tensors))


def same_bits(run: Callable[[], list[Tensor]], counts: tuple[int, ...] = (1, 2, 5)) -> None:
    """Asserts that the results are the same for any number of torch's threads."""
    before = torch.get_num_threads()
    try:
        results = []
        for count in counts:
            torch.set_num_threads(count)
            results.append(run())
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for one, another in zip(results[0], other, strict=True):
            assert torch.equal(one, another)
