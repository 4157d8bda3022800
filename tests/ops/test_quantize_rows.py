"""quantize_rows with every backend: the same bits, the stated error, and what is not finite."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.support.backends import FLOATS, REFERENCE, TRITON, named
from videomae_fast.ops import quantize_rows
from videomae_fast.ops.quantize_rows import E4M3

pytestmark = pytest.mark.usefixtures("poisoned")
IMPLS = [REFERENCE, TRITON]
# One value, odd widths, several chunks with a rest, several warps a row, more rows than programs.
SHAPES = [(1, 1), (3, 5, 7), (2, 9, 300), (4, 1408), (3, 2200), (70, 12), (2, 33, 2, 5)]


def bits(values: Tensor) -> Tensor:
    return values.view(torch.uint8)


def scale_of(row: Tensor) -> float:
    """The least power of two by which a row is within 448, written another way."""
    most = max(float(row.abs().max()), 2.0**-100)
    return 2.0 ** math.ceil(math.log2(most / 448))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("with_factor", [False, True])
def test_against_truth(shape, dtype, with_factor, impl, device):
    torch.manual_seed(0)
    spread = 10.0 ** torch.randint(-3, 4, (*shape[:-1], 1))
    x = (torch.randn(shape) * spread).to(dtype).to(device)
    factor = None
    if with_factor:
        factor = 2.0 ** torch.randint(-9, 3, (shape[-1],), device=device)
    got, reference = (quantize_rows(x, factor=factor, impl=i) for i in (impl, "reference"))
    exact = x.double() if factor is None else x.double() * factor.double()
    assert (got.values.dtype, got.values.shape) == (E4M3, x.shape)
    assert (got.scale.dtype, got.scale.shape) == (torch.float32, x.shape[:-1])
    assert torch.equal(got.scale, reference.scale)
    assert torch.equal(bits(got.values), bits(reference.values))
    rows = exact.reshape(-1, shape[-1])
    assert got.scale.flatten().tolist() == [scale_of(row) for row in rows]
    error = (got.values.double() * got.scale.double()[..., None] - exact).abs()
    floor = 2.0**-17 * exact.abs().amax(-1, keepdim=True)
    assert (error <= torch.maximum(2.0**-4 * exact.abs(), floor)).all()


@pytest.mark.parametrize("impl", IMPLS)
def test_the_largest_magnitude_never_saturates(impl, device):
    """At and beside the borders of scales: 448 · 2ᵏ, the next number, and the one before."""
    exact = torch.tensor([448 * 2.0**k for k in (-120, -30, -1, 0, 1, 40, 119)], device=device)
    beside = [torch.nextafter(exact, exact * side) for side in (0.5, 1.5)]
    x = torch.stack([exact, *beside], 1).reshape(-1, 1) * torch.tensor([[1.0, -0.5]], device=device)
    values, scale = quantize_rows(x, impl=impl)
    largest = values.float().abs().amax(-1)
    assert largest[x[:, 0] > 448 * 2.0**-108].ge(224).all()
    assert largest.le(448).all()
    assert scale[3 * 3 : 3 * 3 + 3].tolist() == [1.0, 1.0, 2.0]


@pytest.mark.parametrize("impl", IMPLS)
def test_rows_of_zeros_and_nearly(impl, device):
    x = torch.zeros(3, 40, device=device)
    x[1, 3], x[2, 5] = 1e-40, -(2.0**-101)
    values, scale = quantize_rows(x, impl=impl)
    assert scale.tolist() == [2.0**-108] * 3
    assert not values[:2].float().any()
    assert values[2, 5] == -128.0


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_what_is_not_finite_stays_visible(bad, dtype, impl, device):
    """All of its row is NaN; the other rows are as ever."""
    torch.manual_seed(0)
    x = torch.randn(4, 300, device=device).to(dtype)
    before = quantize_rows(x, impl=impl)
    x[1, 299], x[2] = bad, bad
    values, scale = quantize_rows(x, impl=impl)
    assert scale.isnan().tolist() == [False, True, True, False]
    assert values.float().isnan().all(1).tolist() == [False, True, True, False]
    for row in (0, 3):
        assert torch.equal(bits(values[row]), bits(before.values[row]))


@pytest.mark.parametrize("programs", [1, 3])
def test_however_many_programs_share_the_rows(programs, kernels, device, monkeypatch):
    monkeypatch.setattr(kernels, "programs_at_once", lambda *_: programs)
    torch.manual_seed(0)
    x = torch.randn(67, 100, device=device)
    got, reference = (
        kernels.forward(named("quantize_rows", x, None)),
        quantize_rows(x, impl="reference"),
    )
    assert torch.equal(bits(got[0]), bits(reference.values))
    assert torch.equal(got[1], reference.scale)


@pytest.mark.parametrize("impl", IMPLS)
def test_views_and_no_rows(impl, device):
    torch.manual_seed(0)
    wide = torch.randn(9, 64, device=device)
    for view in (wide[:, 8:29], wide.t(), wide[::2]):
        got, dense = quantize_rows(view, impl=impl), quantize_rows(view.contiguous(), impl=impl)
        assert torch.equal(bits(got.values), bits(dense.values))
        assert got.values.is_contiguous()
    empty = quantize_rows(wide[:0], impl=impl)
    assert (empty.values.shape, empty.scale.shape) == ((0, 64), (0,))


def test_wrong_shapes():
    with pytest.raises(ValueError, match="D of at least 1"):
        quantize_rows(torch.zeros(3, 0))
    with pytest.raises(ValueError, match=r"factor must be \[4\], got \[3\]"):
        quantize_rows(torch.zeros(2, 4), factor=torch.ones(3))


def test_a_wrong_kernel_is_caught(kernels, device, sabotage):
    """A row that the launch leaves out stays NaN."""
    x = torch.ones(9, 12, device=device)
    sabotage(kernels, "_quantize", 4, lambda n_rows: n_rows - 1)
    values, scale = kernels.forward(named("quantize_rows", x, None))
    assert values[-1].float().isnan().all()
    assert scale[-1].isnan()
