"""The pixel-loss kernels against fp64 truths and the references of their dtype."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import pixel_mse, pixel_mse_with_gradient
from videomae_fast.ops.pixel_target import flat_cubes

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# batch, frames, height, width, tubelet, patch: the official patches, odd sizes, several tiles
SHAPES = [(2, 4, 32, 48, 2, 16), (1, 2, 14, 28, 2, 14), (3, 3, 10, 15, 3, 5), (2, 2, 3, 2, 2, 1)]

Settings = dict[str, Any]


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


def compare(
    assert_accurate: Callable[..., None], prediction: Tensor, *args: Tensor | None, **settings: Any
) -> None:
    out = run("triton", prediction, *args, **settings)
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


@pytest.mark.parametrize(
    ("dtype", "normalize"), [*((dtype, True) for dtype in DTYPES), (torch.bfloat16, False)], ids=str
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_accuracy(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    normalize: bool,
    device: str,
    assert_accurate: Callable[..., None],
) -> None:
    *tensors, sizes = inputs(shape, 3, dtype, device)
    compare(assert_accurate, *tensors, normalize=normalize, **sizes)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_flat_cubes(
    weighted: bool, normalize: bool, device: str, assert_accurate: Callable[..., None]
) -> None:
    prediction, frames, index, weight, sizes = inputs(SHAPES[2], 4, torch.float32, device)
    flat = flat_cubes(frames, index, **sizes)
    assert flat.any()
    assert not flat.all()
    settings = {"normalize": normalize, "ignore_flat": True, **sizes}
    compare(assert_accurate, prediction, frames, index, weight if weighted else None, **settings)
    if not weighted:
        assert run("triton", prediction, frames, index, None, **settings)[1] == (~flat).sum()


def test_a_deviation_of_exactly_one_grey_level_is_flat(device: str) -> None:
    frames = torch.ones(1, 1, 2, 4, 3, dtype=torch.uint8)
    # Left cube: 1 1 1 3 has n Σx² - (Σx)² = 4·12 - 36 = 12 = n (n - 1). Right: 1 1 1 4 has more.
    frames[0, 0, 1, 1], frames[0, 0, 1, 3] = 3, 4
    index = torch.tensor([[0, 1]], dtype=torch.int32)
    prediction = torch.zeros(1, 2, 12)
    sizes = {"tubelet_size": 1, "patch_size": 2}
    assert flat_cubes(frames, index, **sizes).tolist() == [[True, False]]
    tensors = [tensor.to(device) for tensor in (prediction, frames, index)]
    weight = pixel_mse(*tensors, ignore_flat=True, **sizes, impl="triton")[1]
    assert weight == 1


def test_weight_zero_hides_infinity(device: str) -> None:
    prediction, frames, index, weight, sizes = inputs(SHAPES[2], 3, torch.float32, device)
    clean = run("triton", prediction, frames, index, weight, **sizes)
    prediction[0, 1] = float("inf")
    for one, other in zip(
        run("triton", prediction, frames, index, weight, **sizes), clean, strict=True
    ):
        assert torch.equal(one, other)
    assert clean[2][0, 1].eq(0).all()
    raised = pixel_mse_with_gradient(
        prediction, frames, index, weight, scale=float("inf"), **sizes, impl="triton"
    )[2]
    assert raised[0, 1].eq(0).all()
    assert not raised[0, 0].isfinite().any()


def test_target_of_nearly_flat_cube_keeps_its_digits(
    device: str, assert_accurate: Callable[..., None]
) -> None:
    """Values 254 and 255: a float mean would lose digits that the integers keep."""
    prediction, frames, index, _, sizes = inputs((1, 2, 16, 16, 2, 16), 2, torch.float32, device)
    frames = 254 + frames % 2
    prediction = torch.zeros_like(prediction)
    out = run("triton", prediction, frames, index, None, **sizes)[2]
    truth = run("reference", prediction.double(), frames, index, None, **sizes)[2]
    assert_accurate(out, truth.float(), truth, absolute=1e-9)


def test_many_tiles_and_many_runs(
    monkeypatch: pytest.MonkeyPatch, device: str, assert_accurate: Callable[..., None]
) -> None:
    """A cube of several tiles; more tokens than two steps of summing take, in small runs."""
    from videomae_fast.kernels import pixel_mse as kernel

    *tensors, sizes = inputs((1, 2, 24, 48, 2, 24), 2, torch.float32, device)
    compare(assert_accurate, *tensors, **sizes)
    monkeypatch.setattr(kernel, "LAUNCH", replace(kernel.LAUNCH, run=4, sum_block=2))
    *tensors, sizes = inputs((3, 1, 2, 4, 1, 2), 11, torch.float32, device)
    compare(assert_accurate, *tensors, **sizes)


def test_layouts(device: str) -> None:
    """Crops and slices read in place, transposed predictions and strided indices copied."""
    prediction, frames, index, weight, sizes = inputs(SHAPES[0], 4, torch.float32, device)
    index = index % 2
    crop = frames[:, 2:, 8:24, 16:]
    for view in (
        prediction[:, ::2],
        prediction[:, :1].expand(-1, 2, -1),
        prediction.transpose(1, 2).contiguous().transpose(1, 2)[:, :2],
    ):
        assert not view.is_contiguous()
        strided = [view, crop, index[:, ::2], weight[:, ::2]]
        dense = [tensor.contiguous() for tensor in strided]
        out = run("triton", strided[0], *strided[1:], **sizes)
        for one, other in zip(out, run("triton", dense[0], *dense[1:], **sizes), strict=True):
            assert torch.equal(one, other)


def test_repeated_runs_are_equal(device: str) -> None:
    *tensors, sizes = inputs(SHAPES[0], 5, torch.bfloat16, device)
    first = run("triton", *tensors, **sizes)
    for one, other in zip(first, run("triton", *tensors, **sizes), strict=True):
        assert torch.equal(one, other)


def test_no_tokens(device: str) -> None:
    prediction, frames, index, weight, sizes = inputs(SHAPES[2], 3, torch.float32, device)
    empty = [tensor[:, :0] for tensor in (index, weight)]
    loss, total, grad, *whole = run("triton", prediction[:, :0], frames, *empty, **sizes)
    assert loss == total == whole[0] == whole[1] == 0
    assert grad.shape == whole[2].shape == (3, 0, 225)


def test_refusals_say_why(device: str) -> None:
    prediction, frames, index, weight, sizes = inputs(SHAPES[2], 3, torch.float64, device)
    with pytest.raises(BackendUnavailableError, match="fp16, not"):
        pixel_mse(prediction, frames, index, weight, **sizes, impl="triton")
    frames = torch.zeros(1, 1, 200, 200, 3, dtype=torch.uint8, device=device)
    index = torch.zeros(1, 1, dtype=torch.int32, device=device)
    prediction = torch.zeros(1, 1, 120_000, device=device)
    with pytest.raises(BackendUnavailableError, match="at most 33000 pixels"):
        pixel_mse(prediction, frames, index, tubelet_size=1, patch_size=200, impl="triton")


def test_a_wrong_grid_is_noticed(
    sabotage: Callable[..., None], device: str, assert_accurate: Callable[..., None]
) -> None:
    """Negative control: kernels told half the columns of patches."""
    from videomae_fast.kernels import pixel_mse as kernel

    *tensors, sizes = inputs((1, 4, 32, 64, 2, 16), 4, torch.float32, device)
    tensors[2] = torch.tensor([[0, 1, 2, 3]], dtype=torch.int32, device=device)
    sabotage(kernel, "pixel_mse_kernel", 10, lambda columns: columns // 2)
    with pytest.raises(AssertionError, match="error"):
        compare(assert_accurate, *tensors, **sizes)
    reference = run("reference", *tensors, **sizes)
    sabotage(kernel, "pixel_mse_backward_kernel", 8, lambda columns: columns // 2)
    with pytest.raises(AssertionError, match="error"):
        assert_accurate(run("triton", *tensors, **sizes)[2], reference[2], reference[2].double())
    with pytest.raises(AssertionError, match="error"):
        assert_accurate(run("triton", *tensors, **sizes)[5], reference[5], reference[5].double())
