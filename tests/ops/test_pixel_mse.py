"""pixel_mse and its pass with the gradient, with every backend: against fp64 and the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.backends import ALL, FLOATS, KERNELS, assert_accurate, with_dtypes
from tests.support.cubes import cubes_by_hand, random_index
from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import pixel_mse, pixel_mse_with_gradient
from videomae_fast.ops.pixel_target import FLAT_STD, flat_cubes, pixel_target

# batch, frames, height, width, tubelet, patch: the official patches, odd sizes, several tiles
SHAPES = [(2, 4, 32, 48, 2, 16), (1, 2, 14, 28, 2, 14), (3, 3, 10, 15, 3, 5), (2, 2, 3, 2, 2, 1)]
SMALL = (2, 4, 12, 18, 2, 6)

Settings = dict[str, Any]
pytestmark = pytest.mark.usefixtures("poisoned")


def inputs(
    shape: tuple[int, ...], k: int, dtype: torch.dtype, device: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Settings]:
    """prediction, frames (one cube flat, one nearly), index, weight (one 0), sizes."""
    b, t, h, w, p0, p = shape
    generator = torch.Generator().manual_seed(sum(shape))
    frames = torch.randint(0, 256, (b, t, h, w, 3), dtype=torch.uint8, generator=generator)
    frames[0, :p0, :p, :p] = 200
    frames[-1, -p0:, -p:, -p:] = 254 + frames[-1, -p0:, -p:, -p:] % 2
    tokens = (t // p0) * (h // p) * (w // p)
    index = torch.randint(tokens, (b, k), generator=generator, dtype=torch.int32)
    index[:, 0], index[:, -1] = 0, tokens - 1
    weight = torch.rand(b, k, generator=generator)
    weight[0, 1] = 0
    prediction = torch.randn(b, k, 3 * p0 * p * p, generator=generator).to(dtype)
    return (
        prediction.to(device),
        frames.to(device),
        index.to(device),
        weight.to(device),
        {"tubelet_size": p0, "patch_size": p},
    )


def run(impl: str, prediction: Tensor, *args: Tensor | None, **settings: Any) -> list[Tensor]:
    """loss_sum, weight_sum, the prediction's gradient of 3 times the loss, and all in one pass."""
    leaf = prediction.detach().requires_grad_()
    loss, weight = pixel_mse(leaf, *args, **settings, impl=impl)  # type: ignore[arg-type]
    (3 * loss).backward()
    assert leaf.grad is not None
    whole = pixel_mse_with_gradient(prediction, *args, scale=3.0, **settings, impl=impl)  # type: ignore[arg-type]
    return [loss.detach(), weight, leaf.grad, *whole]


def compare(impl: str, prediction: Tensor, *args: Tensor | None, **settings: Any) -> None:
    out = run(impl, prediction, *args, **settings)
    reference = run("reference", prediction, *args, **settings)
    truth = run("reference", prediction.double(), *args, **settings)
    # Sums of many values: a few units in the last place of their size.
    for i in (0, 1, 3, 4):
        assert_accurate(out[i], reference[i], truth[i], absolute=float(truth[i].abs()) * 1e-6)
    for i in (2, 5):
        assert_accurate(out[i], reference[i], truth[i])
    if prediction.device.type == "cpu":  # a compiler may contract each kernel its own way
        for separate, whole in zip(out[:3], out[3:], strict=True):
            assert torch.equal(separate, whole), "one pass and two differ"


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("impl", "dtype"), with_dtypes(FLOATS[:2]))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_accuracy(
    shape: tuple[int, ...], impl: str, dtype: torch.dtype, normalize: bool, device: str
) -> None:
    *tensors, sizes = inputs(shape, 3, dtype, device)
    compare(impl, *tensors, normalize=normalize, **sizes)


@pytest.mark.parametrize("impl", KERNELS)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_flat_cubes(impl: str, weighted: bool, normalize: bool, device: str) -> None:
    prediction, frames, index, weight, sizes = inputs(SHAPES[2], 4, torch.float32, device)
    flat = flat_cubes(frames, index, **sizes)
    assert flat.any()
    assert not flat.all()
    settings = {"normalize": normalize, "ignore_flat": True, **sizes}
    compare(impl, prediction, frames, index, weight if weighted else None, **settings)
    if not weighted:
        assert run(impl, prediction, frames, index, None, **settings)[1] == (~flat).sum()


@pytest.mark.parametrize("impl", KERNELS)
def test_a_deviation_of_exactly_one_grey_level_is_flat(impl: str, device: str) -> None:
    frames = torch.ones(1, 1, 2, 4, 3, dtype=torch.uint8)
    # Left cube: 1 1 1 3 has n Σx² - (Σx)² = 4·12 - 36 = 12 = n (n - 1). Right: 1 1 1 4 has more.
    frames[0, 0, 1, 1], frames[0, 0, 1, 3] = 3, 4
    index = torch.tensor([[0, 1]], dtype=torch.int32)
    prediction = torch.zeros(1, 2, 12)
    sizes = {"tubelet_size": 1, "patch_size": 2}
    assert flat_cubes(frames, index, **sizes).tolist() == [[True, False]]
    tensors = [tensor.to(device) for tensor in (prediction, frames, index)]
    weight = pixel_mse(*tensors, ignore_flat=True, **sizes, impl=impl)[1]
    assert weight == 1


@pytest.mark.parametrize("impl", ALL)
def test_weight_zero_hides_infinity(impl: str, device: str) -> None:
    prediction, frames, index, weight, sizes = inputs(SHAPES[2], 3, torch.float32, device)
    clean = run(impl, prediction, frames, index, weight, **sizes)
    prediction[0, 1] = float("inf")
    for one, other in zip(
        run(impl, prediction, frames, index, weight, **sizes), clean, strict=True
    ):
        assert torch.equal(one, other)
    assert clean[2][0, 1].eq(0).all()
    raised = pixel_mse_with_gradient(
        prediction, frames, index, weight, scale=float("inf"), **sizes, impl=impl
    )[2]
    assert raised[0, 1].eq(0).all()
    assert not raised[0, 0].isfinite().any()


@pytest.mark.parametrize("impl", KERNELS)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("patch", [2, 40], ids=["one tile", "several"])
def test_a_flat_cube_hides_infinity(impl: str, patch: int, normalize: bool, device: str) -> None:
    """Its prediction may have been read before the cube is known to be flat."""
    shape = (1, 2, patch, 2 * patch, 2, patch)
    prediction, frames, index, _, sizes = inputs(shape, 2, torch.float32, device)
    settings = {"normalize": normalize, "ignore_flat": True, **sizes}
    frames[0, :, :, patch:, 0] = torch.arange(patch, device=device, dtype=torch.uint8) * 3
    clean = run(impl, prediction, frames, index, None, **settings)
    assert clean[1] == 1
    prediction[0, 0] = float("inf")
    hidden = run(impl, prediction, frames, index, None, **settings)
    for one, other in zip(hidden, clean, strict=True):
        assert torch.equal(one, other)
    assert clean[2][0, 0].eq(0).all()


@pytest.mark.parametrize("impl", KERNELS)
def test_target_of_nearly_flat_cube_keeps_its_digits(impl: str, device: str) -> None:
    """Values 254 and 255: a float mean would lose digits that the integers keep."""
    prediction, frames, index, _, sizes = inputs((1, 2, 16, 16, 2, 16), 2, torch.float32, device)
    frames = 254 + frames % 2
    prediction = torch.zeros_like(prediction)
    out = run(impl, prediction, frames, index, None, **sizes)[2]
    truth = run("reference", prediction.double(), frames, index, None, **sizes)[2]
    assert_accurate(out, truth.float(), truth, absolute=1e-9)


def test_many_tiles_and_many_runs(
    interpreted: None, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """A cube of several tiles; more tokens than two steps of summing take, in small runs."""
    from videomae_fast.kernels import pixel_mse as kernel

    *tensors, sizes = inputs((1, 2, 24, 48, 2, 24), 2, torch.float32, device)
    compare("triton", *tensors, **sizes)
    monkeypatch.setattr(kernel, "LAUNCH", replace(kernel.LAUNCH, run=4, sum_block=2))
    *tensors, sizes = inputs((3, 1, 2, 4, 1, 2), 11, torch.float32, device)
    compare("triton", *tensors, **sizes)


@pytest.mark.parametrize("impl", KERNELS)
def test_layouts(impl: str, device: str) -> None:
    """Crops and slices read in place, transposed predictions and strided indices copied."""
    prediction, frames, index, weight, sizes = inputs(SMALL, 4, torch.float32, device)
    index = index % 2
    crop = frames[:, 2:, 3:9, 6:]
    for view in (
        prediction[:, ::2],
        prediction[:, :1].expand(-1, 2, -1),
        prediction.transpose(1, 2).contiguous().transpose(1, 2)[:, :2],
    ):
        assert not view.is_contiguous()
        strided = [view, crop, index[:, ::2], weight[:, ::2]]
        dense = [tensor.contiguous() for tensor in strided]
        out = run(impl, strided[0], *strided[1:], **sizes)
        for one, other in zip(out, run(impl, dense[0], *dense[1:], **sizes), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("impl", KERNELS)
def test_repeated_runs_are_equal(impl: str, device: str) -> None:
    dtype = torch.float32 if impl == "native" else torch.bfloat16
    *tensors, sizes = inputs(SMALL, 5, dtype, device)
    first = run(impl, *tensors, **sizes)
    for one, other in zip(first, run(impl, *tensors, **sizes), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("impl", KERNELS)
def test_no_tokens(impl: str, device: str) -> None:
    prediction, frames, index, weight, sizes = inputs(SHAPES[2], 3, torch.float32, device)
    empty = [tensor[:, :0] for tensor in (index, weight)]
    loss, total, grad, *whole = run(impl, prediction[:, :0], frames, *empty, **sizes)
    assert loss == total == whole[0] == whole[1] == 0
    assert grad.shape == whole[2].shape == (3, 0, 225)


def test_refusals_say_why(interpreted: None, device: str) -> None:
    prediction, frames, index, weight, sizes = inputs(SHAPES[2], 3, torch.float64, device)
    with pytest.raises(BackendUnavailableError, match="fp32, bf16 and fp16, not"):
        pixel_mse(prediction, frames, index, weight, **sizes, impl="triton")
    frames = torch.zeros(1, 1, 200, 200, 3, dtype=torch.uint8, device=device)
    index = torch.zeros(1, 1, dtype=torch.int32, device=device)
    prediction = torch.zeros(1, 1, 120_000, device=device)
    with pytest.raises(BackendUnavailableError, match="at most 33000 pixels"):
        pixel_mse(prediction, frames, index, tubelet_size=1, patch_size=200, impl="triton")


def test_a_wrong_grid_is_noticed(
    interpreted: None, sabotage: Callable[..., None], device: str
) -> None:
    """Negative control: a kernel told half the columns of patches."""
    from videomae_fast.kernels import pixel_mse as kernel

    *tensors, sizes = inputs((1, 4, 32, 64, 2, 16), 4, torch.float32, device)
    tensors[2] = torch.tensor([[0, 1, 2, 3]], dtype=torch.int32, device=device)
    sabotage(kernel, "pixel_mse_kernel", 11, lambda columns: columns // 2)
    with pytest.raises(AssertionError, match="error"):
        compare("triton", *tensors, **sizes)
    reference = run("reference", *tensors, **sizes)
    with pytest.raises(AssertionError, match="error"):
        assert_accurate(run("triton", *tensors, **sizes)[2], reference[2], reference[2].double())
    with pytest.raises(AssertionError, match="error"):
        assert_accurate(run("triton", *tensors, **sizes)[5], reference[5], reference[5].double())


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_reference_by_hand(shape, weighted, normalize, random_frames):
    *size, tubelet, patch = shape
    frames = random_frames(*size)
    tokens = size[1] // tubelet * (size[2] // patch) * (size[3] // patch)
    index = random_index(size[0], tokens, 4)
    torch.manual_seed(0)
    prediction = torch.randn(size[0], 4, 3 * tubelet * patch**2, requires_grad=True)
    weight = torch.rand(size[0], 4) if weighted else None
    if weight is not None:
        weight[0, 0] = 0
    loss_sum, weight_sum = pixel_mse(
        prediction, frames, index, weight, tubelet_size=tubelet, patch_size=patch,
        normalize=normalize, impl="reference",
    )  # fmt: skip
    (3 * loss_sum).backward()
    target = cubes_by_hand(frames, index, tubelet, patch).double().flatten(2, 4) / 255
    if normalize:
        target = (target - target.mean(2, keepdim=True)) / (target.std(2, keepdim=True) + 1e-6)
    exact = prediction.detach().double().requires_grad_()
    weights = torch.ones(index.shape).double() if weight is None else weight.double()
    truth = (weights * (exact - target.flatten(2)).square().mean(-1)).sum()
    (3 * truth).backward()
    torch.testing.assert_close(loss_sum.detach().double(), truth.detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(weight_sum.double(), weights.sum(), rtol=1e-6, atol=0)
    torch.testing.assert_close(prediction.grad.double(), exact.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("impl", ALL)
def test_what_counts_as_flat(impl, device, random_frames):
    """At most one grey level of standard deviation in every channel is flat; more is not."""
    frames = random_frames(1, 2, 16, 64)
    frames[..., :16, :] = 80
    frames[:, 0, 0, 0, 1] = 81
    frames[..., 16:32, :] = torch.tensor([10, 12]).repeat(8)[:, None].to(torch.uint8)
    frames[..., 32:48, 0] = 9  # one flat channel does not make a flat cube
    index = torch.arange(4, dtype=torch.int32)[None]
    std = pixel_target(frames, index, normalize=False).reshape(4, -1, 3).std(1).amax(1)
    assert (std <= FLAT_STD).tolist() == [True, False, False, False]
    assert flat_cubes(frames, index, tubelet_size=2, patch_size=16).tolist() == [
        [True, False, False, False]
    ]
    prediction = torch.zeros(1, 4, 1536, device=device, requires_grad=True)
    clips = frames.to(device), index.to(device)
    loss_sum, weight = pixel_mse(prediction, *clips, ignore_flat=True, impl=impl)
    assert float(weight) == 3
    loss_sum.backward()
    assert not prediction.grad[0, 0].any()
    assert prediction.grad[0, 1:].any(-1).all()
