"""The interpreter with our shortcuts gives the bits of Triton's own, and undoes what it does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.bits import bits
from tests.support.interpreter import ON_GPU
from tests.support.quick_interpreter import slow

pytestmark = pytest.mark.skipif(ON_GPU, reason="kernels are compiled here")


@pytest.fixture
def kernels() -> Any:
    """The module of them; Triton looks at its switch when it is imported."""
    from tests.kernels import reducing_kernels

    return reducing_kernels


def both(kernel: Any, given: Tensor, out: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """What a kernel writes here, and in Triton's own interpreter."""
    found = []
    for own in (False, True):
        result = torch.full_like(out, -1)
        if own:
            with slow():
                kernel[(1,)](given, result, **options)
        else:
            kernel[(1,)](given, result, **options)
        found.append(bits(result))
    return found[0], found[1]


def values(dtype: torch.dtype = torch.float32, rows: int = 8, columns: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, columns, generator=generator).to(dtype)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_reductions_by_functions_of_kernels(
    kernels: Any, dtype: torch.dtype, axis: int, keep: bool
) -> None:
    given = values(dtype)
    out = torch.empty(2, given.shape[1 - axis], dtype=dtype)
    sizes = {"AXIS": axis, "KEEP": keep, "ROWS": 8, "COLUMNS": 4}
    ours, theirs = both(kernels.reducing, given, out, **sizes)
    assert torch.equal(ours, theirs)
    total = ours[: out.shape[1]] if ours.ndim == 1 else ours[0]
    torch.testing.assert_close(total.view(dtype), given.sum(axis), rtol=0.03, atol=0.03)


def test_a_function_that_branches_is_called_for_each_element(kernels: Any) -> None:
    given = values()
    result = torch.empty(4)
    ours, theirs = both(kernels.largest, given, result, ROWS=8, COLUMNS=4)
    assert torch.equal(ours, theirs)
    assert torch.equal(ours, bits(given.amax(0)))


def test_integers_that_wrap_and_functions_within_functions(kernels: Any) -> None:
    given = values()
    ours, theirs = both(kernels.wrapping, given, given, ROWS=8, COLUMNS=4)
    assert torch.equal(ours, theirs)


def test_after_a_launch_the_language_is_as_before(kernels: Any) -> None:
    def language() -> list[Any]:
        tl = kernels.tl
        return [tl.load, tl.range, tl.math.exp, tl.tensor.__dict__.get("__bool__"), tl.dtype.to_ir]

    before = language()
    given = values()
    kernels.wrapping[(1,)](given, torch.empty_like(given), ROWS=8, COLUMNS=4)
    assert language() == before
