"""roi_features with every backend: golden values, the unfused chain in fp64, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from tests.support.backends import ALL, KERNELS, assert_accurate, same_bits, with_dtypes
from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import roi_features
from videomae_fast.ops.registry import REGISTRY
from videomae_fast.ops.roi_align import RoiSpec, roi_align

pytestmark = pytest.mark.usefixtures("poisoned")
GOLDEN = Path(__file__).parents[1] / "golden" / "downstream_ava_model.safetensors"
OPS = torch.ops.videomae_fast
# clips, slots, height, width, channels, boxes: one of each, odd and wider than the tiles, more
# boxes than clips
SHAPES = [(1, 1, 1, 1, 1, 1), (2, 3, 5, 17, 37, 9), (3, 2, 14, 14, 40, 7), (1, 4, 3, 6, 130, 3)]
SPECS = [
    RoiSpec(7, 1 / 16),
    RoiSpec(7, 1 / 16, 0, True),
    RoiSpec(3, 1 / 14, 2, True),
    RoiSpec(5, 1 / 14, 3),
]
# Each shape with two of them
CASES = [(SHAPES[i], SPECS[(i + j) % 4]) for i in range(4) for j in range(2)]


def drawn(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> tuple[Tensor, ...]:
    """tokens, boxes, clip: boxes within, across the edges, outside, without area, huge."""
    batch, slots, height, width, dim, count = shape
    generator = torch.Generator().manual_seed(sum(shape))
    tokens = torch.randn(batch, slots * height * width, dim, generator=generator)
    extent = 16.0 * torch.tensor([width, height])
    low = (torch.rand(count, 2, generator=generator) * 1.4 - 0.3) * extent
    side = torch.rand(count, 2, generator=generator).square() * extent
    boxes = torch.cat([low, low + side], 1)
    odd = [[20.0, 9.0, 20.0, 9.0], [-900.0, -500.0, 1100.0, 900.0], [5e3, 5e3, 6e3, 6e3]]
    boxes[count - min(3, count - 1) :] = torch.tensor(odd[: min(3, count - 1)]).reshape(-1, 4)
    clip = torch.randint(batch, (count,), generator=generator)
    return tokens.to(device, dtype), boxes.to(device), clip.to(device)


def chain(tokens: Tensor, boxes: Tensor, clip: Tensor, grid: tuple[int, ...], spec: RoiSpec):
    """The bins of the unfused chain, [N, size * size, D]."""
    maps = tokens.unflatten(1, grid).mean(1).permute(0, 3, 1, 2)
    return roi_align(maps, boxes, clip, spec).flatten(2).transpose(1, 2)


@pytest.mark.parametrize("impl", ALL)
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("aligned", [False, True])
def test_golden(impl: str, ratio: int, aligned: bool, device: str) -> None:
    """Features, and RoIAlign with its gradient by the weights of rows and columns."""
    with safe_open(GOLDEN, "pt", device=device) as file:
        name = f"roi/sampling{ratio}_aligned{int(aligned)}"
        wanted, gradient = file.get_tensor(name), file.get_tensor(f"{name}_grad")
        maps, rois = file.get_tensor("roi/features"), file.get_tensor("roi/rois")
        upstream = file.get_tensor("roi/weights")
    boxes, clip = rois[:, 1:], rois[:, 0].long()
    height, width = maps.shape[2:]
    tokens = maps.flatten(2).transpose(1, 2)
    spec = RoiSpec(7, 1 / 16, ratio, aligned)
    found = roi_features(tokens, boxes, clip, grid=(1, height, width), spec=spec, impl=impl)
    torch.testing.assert_close(found, wanted.amax((2, 3)), rtol=1e-5, atol=1e-5)
    out = OPS.roi_features(tokens, boxes, clip, 1, height, width, *spec, impl)
    bins = torch.einsum("nph,nchw,nqw->ncpq", out[2], maps[clip], out[3])
    torch.testing.assert_close(bins, wanted, rtol=1e-5, atol=1e-5)
    back = torch.einsum("nph,ncpq,nqw->nchw", out[2], upstream, out[3])
    grad = torch.zeros_like(maps).index_add_(0, clip, back)
    torch.testing.assert_close(grad, gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("impl", "dtype"), with_dtypes([torch.float32]))
@pytest.mark.parametrize(("shape", "spec"), CASES, ids=str)
def test_both_ways(
    impl: str, dtype: torch.dtype, shape: tuple[int, ...], spec: RoiSpec, device: str
) -> None:
    tokens, boxes, clip = drawn(shape, dtype, device)
    batch, slots, *_, dim, count = shape
    grid = shape[1:4]
    how = (boxes, clip, *grid, *spec)
    features, best, down, across = OPS.roi_features(tokens, *how, impl)
    reference = OPS.roi_features(tokens, *how, "reference")
    bins = chain(tokens.double(), boxes.double(), clip, grid, spec)
    assert_accurate(features, reference[0], bins.amax(1), absolute=2e-6)
    for mine, theirs in ((down, reference[2]), (across, reference[3])):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)
    assert best.dtype == torch.int32
    at_best = bins.gather(1, best.long()[:, None])[:, 0]
    torch.testing.assert_close(at_best, bins.amax(1), rtol=1e-5, atol=1e-5)

    grad = torch.randn(count, dim, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    kept = (clip, best, down, across)
    got = OPS.roi_features_backward(grad, *kept, batch, slots, impl)
    alike = OPS.roi_features_backward(grad, *kept, batch, slots, "reference")
    kept = (clip, best, down.double(), across.double())
    truth = OPS.roi_features_backward(grad.double(), *kept, batch, slots, "reference")
    assert_accurate(got, alike, truth, absolute=2e-6)
    assert torch.equal(
        got, OPS.roi_features_backward(grad, clip, best, down, across, batch, slots, impl)
    )


@pytest.mark.parametrize("impl", KERNELS)
def test_any_boxes_and_settings(impl: str, device: str) -> None:
    """Random grids, settings and boxes of any size, from points to many times the map.

    A bin's number of samples is a matter of fp32: the tables are held against the reference's in
    fp32, all that is made of them against fp64.
    """
    generator = torch.Generator().manual_seed(7)

    def integer(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    most = 8 if impl == "triton" else 40
    for _ in range(most // 4):
        batch, slots, dim, count = integer(1, 3), integer(1, 4), integer(1, 70), integer(1, most)
        height, width = integer(1, most // 2), integer(1, most // 2)
        scale = (1 / 16, 1 / 14, 0.3, 1.0)[integer(0, 3)]
        spec = RoiSpec(integer(1, 9), scale, integer(0, 3), bool(integer(0, 1)))
        tokens = torch.randn(batch, slots * height * width, dim, generator=generator)
        middle = (torch.rand(count, 2, generator=generator) * 1.6 - 0.3) * max(height, width)
        side = (torch.rand(count, 2, generator=generator) * 9 - 4).exp()
        boxes = torch.cat([middle - side / 2, middle + side / 2], 1) / scale
        clip = torch.randint(batch, (count,), generator=generator)
        tokens, boxes, clip = tokens.to(device), boxes.to(device), clip.to(device)
        how = (boxes, clip, slots, height, width, *spec)
        out = OPS.roi_features(tokens, *how, impl)
        theirs = OPS.roi_features(tokens, *how, "reference")
        torch.testing.assert_close(out[2:], theirs[2:], rtol=1e-5, atol=1e-5, msg=str(spec))
        down, across = (one.double() for one in out[2:])
        maps = tokens.double().unflatten(1, (slots, height, width)).mean(1)
        bins = torch.einsum("nph,nhwc,nqw->npqc", down, maps[clip], across).flatten(1, 2)
        torch.testing.assert_close(out[0].double(), bins.amax(1), rtol=1e-5, atol=1e-5)
        grad = torch.randn(count, dim, generator=generator).to(device)
        got = OPS.roi_features_backward(grad, clip, *out[1:], batch, slots, impl)
        kept = (clip, out[1], down, across)
        truth = OPS.roi_features_backward(grad.double(), *kept, batch, slots, "reference")
        torch.testing.assert_close(got.double(), truth, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", ALL)
@pytest.mark.parametrize("aligned", [False, True])
def test_gradients_are_those_of_the_chain(impl: str, aligned: bool, device: str) -> None:
    shape = (2, 2, 5, 6, 20, 6)
    tokens, boxes, clip = drawn(shape, torch.float32, device)
    spec = RoiSpec(7, 1 / 16, 0, aligned)
    exact = tokens.double().requires_grad_()
    grad = torch.randn(6, 20, generator=torch.Generator().manual_seed(2)).to(device)
    chain(exact, boxes.double(), clip, (2, 5, 6), spec).max(1).values.backward(grad.double())
    tokens.requires_grad_()
    roi_features(tokens, boxes, clip, grid=(2, 5, 6), spec=spec, impl=impl).backward(grad)
    torch.testing.assert_close(tokens.grad, exact.grad.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", ALL)
def test_a_bin_of_whole_cells_has_as_many_samples(impl: str, device: str) -> None:
    """Sides whose bins are whole cells, or nearly: their number must not jump up."""
    side = torch.arange(1, 40, 9 if impl == "triton" else 1, device=device) * 49.0
    boxes = torch.stack([side * 0 + 3, side * 0 + 5, side + 3, side + 5], 1)
    tokens = torch.zeros(1, 6 * 5, 1, device=device)
    clip = torch.zeros(len(boxes), dtype=torch.int64, device=device)
    for scale in (1 / 16, 1 / 14, 1 / 7, 0.3):
        how = (tokens, boxes, clip, 1, 6, 5, 7, scale, 0, False)
        mine, theirs = (OPS.roi_features(*how, name) for name in (impl, "reference"))
        torch.testing.assert_close(mine[2:], theirs[2:], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("impl", ALL)
def test_the_first_of_equal_bins_is_taken(impl: str, device: str) -> None:
    tokens, boxes, clip = drawn((2, 2, 4, 5, 6, 8), torch.float32, device)
    out = OPS.roi_features(tokens * 0, boxes, clip, 2, 4, 5, 3, 1 / 16, 0, False, impl)
    assert not out[0].any()
    assert not out[1].any()


@pytest.mark.parametrize("impl", ALL)
def test_nan_is_passed_on(impl: str, device: str) -> None:
    """Within a box, as the maximum of torch has it; what is far from the box does not matter."""
    tokens = torch.randn(1, 64, 3, device=device)
    tokens[0, 2 * 8 + 2, 1] = torch.nan
    boxes = torch.tensor([[16.0, 16.0, 64.0, 64.0]], device=device)
    clip = torch.zeros(1, dtype=torch.int64, device=device)
    found = roi_features(tokens, boxes, clip, grid=(1, 8, 8), spec=RoiSpec(7, 1 / 16), impl=impl)
    assert found.isnan().tolist() == [[False, True, False]]


@pytest.mark.parametrize("impl", ALL)
def test_minus_infinity_is_a_value(impl: str, device: str) -> None:
    tokens = torch.full((1, 64, 3), -torch.inf, device=device)
    boxes = torch.tensor([[0.0, 0.0, 128.0, 128.0]], device=device)
    clip = torch.zeros(1, dtype=torch.int64, device=device)
    out = OPS.roi_features(tokens, boxes, clip, 1, 8, 8, 1, 1 / 16, 1, True, impl)
    assert not out[1].any() or out[0].isnan().any()
    assert not out[0].isfinite().any()


@pytest.mark.parametrize("impl", ALL)
def test_layouts(impl: str, device: str) -> None:
    """Strided tokens, boxes, clips and gradients: the values of their dense copies."""
    tokens, boxes, clip = drawn((4, 2, 5, 6, 40, 6), torch.float32, device)
    views = tokens[::2, :, 3:33:2], boxes.flip(1)[:, [1, 0, 3, 2]].flip(1)[::2], clip[::2] // 2
    views = (views[0], torch.stack([boxes, boxes], 2)[::2, :, 1], views[2])
    how = (2, 5, 6, 3, 1 / 16, 0, True)
    out = OPS.roi_features(*views, *how, impl)
    dense = OPS.roi_features(*(one.contiguous() for one in views), *how, impl)
    for one, other in zip(out, dense, strict=True):
        assert torch.equal(one, other)
    grad = torch.randn(15, 3, device=device).t()
    one = OPS.roi_features_backward(grad, views[2], *out[1:], 2, 2, impl)
    other = OPS.roi_features_backward(grad.contiguous(), views[2], *out[1:], 2, 2, impl)
    assert torch.equal(one, other)


@pytest.mark.parametrize("impl", ALL)
def test_nothing(impl: str, device: str) -> None:
    """No box; no clip; no channel."""
    tokens, boxes, clip = drawn((2, 2, 3, 4, 5, 3), torch.float32, device)
    tokens.requires_grad_()
    settings = {"grid": (2, 3, 4), "spec": RoiSpec(), "impl": impl}
    found = roi_features(tokens, boxes[:0], clip[:0], **settings)
    assert found.shape == (0, 5)
    found.sum().backward()
    assert not tokens.grad.any()
    assert roi_features(tokens[:0], boxes[:0], clip[:0], **settings).shape == (0, 5)
    assert roi_features(tokens[..., :0], boxes, clip, **settings).shape == (3, 0)


@pytest.mark.without_gpu
def test_the_same_bits_for_any_number_of_threads() -> None:
    tokens, boxes, clip = drawn((3, 4, 14, 14, 200, 30), torch.float32, "cpu")

    def run() -> list[Tensor]:
        out = OPS.roi_features(tokens, boxes, clip, 4, 14, 14, 7, 1 / 16, 0, False, "native")
        back = OPS.roi_features_backward(out[0], clip, *out[1:], 3, 4, "native")
        return [*out, back]

    same_bits(run)


@pytest.mark.parametrize("impl", ["reference", pytest.param("triton", marks=KERNELS[1].marks)])
@pytest.mark.parametrize("wrong", [2, -1])
def test_boxes_that_are_not_checked_are_not_numbers(impl: str, wrong: int, device: str) -> None:
    """Where values are not looked at beforehand, as on a GPU: NaN, and no gradient elsewhere."""
    tokens, boxes, clip = drawn((2, 2, 3, 4, 5, 4), torch.float32, device)
    boxes[:] = torch.tensor([8.0, 8.0, 40.0, 40.0])
    clip[:] = torch.tensor([0, wrong, 1, 1])
    boxes[2, 3] = torch.nan
    boxes[3, 0] = 41.0
    out = OPS.roi_features(tokens, boxes, clip, 2, 3, 4, 7, 1 / 16, 0, False, impl)
    assert out[0].isnan().all(1).tolist() == [False, True, True, True]
    kept = [one[:2] for one in (clip, *out[1:])]
    grad = torch.ones(2, 5, device=device)
    both = OPS.roi_features_backward(grad, *kept, 2, 2, impl)
    first = OPS.roi_features_backward(grad[:1], *(one[:1] for one in kept), 2, 2, impl)
    assert torch.equal(both, first)


@pytest.mark.without_gpu
@pytest.mark.parametrize("wrong", [2, -1])
def test_the_library_refuses_a_clip_that_there_is_not(wrong: int) -> None:
    tokens, boxes, clip = drawn((2, 2, 3, 4, 5, 4), torch.float32, "cpu")
    out = OPS.roi_features(tokens, boxes, clip, 2, 3, 4, 7, 1 / 16, 0, False, "native")
    clip[1] = wrong
    with pytest.raises(ValueError, match="refuses its arguments"):
        OPS.roi_features(tokens, boxes, clip, 2, 3, 4, 7, 1 / 16, 0, False, "native")
    with pytest.raises(ValueError, match="refuses its arguments"):
        OPS.roi_features_backward(out[0], clip, *out[1:], 2, 2, "native")
    with pytest.raises(ValueError, match=f"box 1 is of clip {wrong}"):
        roi_features(tokens, boxes, clip, grid=(2, 3, 4), spec=RoiSpec())


@pytest.mark.without_gpu
def test_what_does_not_fit_is_refused(interpreted: None) -> None:
    tokens, boxes, clip = drawn((2, 2, 3, 4, 5, 4), torch.float32, "cpu")
    with pytest.raises(ValueError, match="tokens must be"):
        roi_features(tokens[:, 1:], boxes, clip, grid=(2, 3, 4), spec=RoiSpec())
    with pytest.raises(ValueError, match="tokens must be floating"):
        roi_features(tokens.int(), boxes, clip, grid=(2, 3, 4), spec=RoiSpec())
    with pytest.raises(BackendUnavailableError, match="up to 16 bins a side, not 17"):
        roi_features(tokens, boxes, clip, grid=(2, 3, 4), spec=RoiSpec(17), impl="triton")
    for impl, told in (("native", "takes fp32, not"), ("triton", "fp16, not")):
        with pytest.raises(BackendUnavailableError, match=told):
            roi_features(tokens.double(), boxes, clip, grid=(2, 3, 4), spec=RoiSpec(), impl=impl)


@pytest.mark.without_gpu
def test_autocast_changes_nothing() -> None:
    tokens, boxes, clip = drawn((2, 2, 3, 4, 5, 4), torch.float32, "cpu")
    tokens.requires_grad_()
    for impl in REGISTRY["roi_features"].backends.keys() - {"triton"}:

        def both(impl: str = impl) -> tuple[Tensor, Tensor]:
            settings = {"grid": (2, 3, 4), "spec": RoiSpec(7, 1 / 16), "impl": impl}
            found = roi_features(tokens, boxes, clip, **settings)
            (grad,) = torch.autograd.grad(found.sum(), tokens)
            return found, grad

        plain = both()
        with torch.autocast("cpu", torch.bfloat16):
            for one, other in zip(both(), plain, strict=True):
                assert torch.equal(one, other)


def test_gradients_are_derivatives() -> None:
    tokens, boxes, clip = drawn((2, 2, 3, 4, 5, 4), torch.float64, "cpu")
    tokens.requires_grad_()
    spec = RoiSpec(2, 1 / 16)
    assert torch.autograd.gradcheck(
        lambda x: roi_features(x, boxes, clip, grid=(2, 3, 4), spec=spec), (tokens,)
    )


def test_a_graph_of_it_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, boxes, clip = drawn((2, 2, 3, 4, 5, 4), torch.float32, "cpu")

    def run(x: Tensor) -> Tensor:
        return roi_features(x, boxes, clip, grid=(2, 3, 4), spec=RoiSpec(7, 1 / 16))

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    ours, theirs = (tokens.clone().requires_grad_() for _ in range(2))
    compiled(ours).sum().backward()
    run(theirs).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize(("place", "change"), [(0, lambda maps: maps + 0.01), (7, lambda n: n - 1)])
def test_wrong_bins_are_noticed(
    interpreted: None,
    sabotage: Callable[..., None],
    place: int,
    change: Callable[..., object],
    device: str,
) -> None:
    """Negative control: maps that are off, and rows that lie closer than they do."""
    from videomae_fast.kernels import roi_features as kernel

    tokens, boxes, clip = drawn((2, 2, 5, 6, 8, 4), torch.float32, device)
    how = (boxes, clip, 2, 5, 6, 3, 1 / 16, 0, False)
    reference = OPS.roi_features(tokens, *how, "reference")[0]
    bins = chain(tokens.double(), boxes.double(), clip, (2, 5, 6), RoiSpec(3, 1 / 16))
    sabotage(kernel, "roi_bins_kernel", place, change)
    with pytest.raises(AssertionError, match=r"error|values missing"):
        assert_accurate(OPS.roi_features(tokens, *how, "triton")[0], reference, bins.amax(1))


def test_a_wrong_order_of_boxes_is_noticed(
    interpreted: None, sabotage: Callable[..., None], device: str
) -> None:
    """Negative control: a backward that takes boxes as they come for sorted by clip."""
    from videomae_fast.kernels import roi_features as kernel

    tokens, boxes, _ = drawn((2, 2, 5, 6, 8, 4), torch.float32, device)
    boxes[:] = torch.tensor([8.0, 8.0, 60.0, 70.0], device=device)
    clip = torch.tensor([1, 0, 1, 0], device=device)
    out = OPS.roi_features(tokens, boxes, clip, 2, 5, 6, 3, 1 / 16, 0, False, "reference")
    right = OPS.roi_features_backward(out[0], clip, *out[1:], 2, 2, "reference")
    sabotage(kernel, "roi_backward_kernel", 4, lambda order: order.sort().values)
    wrong = OPS.roi_features_backward(out[0], clip, *out[1:], 2, 2, "triton")
    with pytest.raises(AssertionError, match="error"):
        assert_accurate(wrong, right, right.double())
