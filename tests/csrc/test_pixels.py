"""Patch gather and normalised-pixel MSE of the compiled library."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from tests.support import library
from tests.support.building import in_place_of_ours, without_levels
from videomae_fast.ops._native import pixels

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# (clips, frames, height, width, tubelet, patch, tokens per clip); known and unknown patch sizes
SHAPES = [
    (2, 4, 32, 48, 2, 16, 5),
    (1, 2, 28, 14, 2, 14, 2),
    (3, 3, 10, 15, 1, 5, 7),
    (1, 2, 2, 4, 2, 1, 3),
]
Shape = tuple[int, int, int, int, int, int, int]


def clips(shape: Shape, seed: int = 0) -> tuple[Tensor, Tensor]:
    b, t, h, w, tubelet, patch, k = shape
    random = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (b, t, h, w, 3), dtype=torch.uint8, generator=random)
    tokens = (t // tubelet) * (h // patch) * (w // patch)
    index = torch.randint(0, tokens, (b, k), dtype=torch.int32, generator=random)
    return frames, index


def cubes(frames: Tensor, index: Tensor, tubelet: int, patch: int) -> npt.NDArray[np.float64]:
    """float64 [B, K, p0, p1, p2, c], cut out one by one."""
    _, _, h, w, _ = frames.shape
    rows, columns = h // patch, w // patch
    out = []
    for clip, positions in zip(frames.numpy(), index.numpy(), strict=True):
        for position in positions:
            slot, place = divmod(int(position), rows * columns)
            row, column = divmod(place, columns)
            t, y, x = slot * tubelet, row * patch, column * patch
            out.append(clip[t : t + tubelet, y : y + patch, x : x + patch])
    stacked = np.stack(out).astype(np.float64)
    return stacked.reshape(*index.shape, tubelet, patch, patch, 3)


def truth(
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor,
    tubelet: int,
    patch: int,
    normalize: bool,
) -> tuple[float, npt.NDArray[np.float64]]:
    """The weighted sum of the losses and its gradient, in float64."""
    pixels = cubes(frames, index, tubelet, patch).reshape(*index.shape, -1, 3) / 255
    if normalize:
        mean = pixels.mean(-2, keepdims=True)
        pixels = (pixels - mean) / (pixels.std(-2, ddof=1, keepdims=True) + 1e-6)
    difference = prediction.double().numpy() - pixels.reshape(prediction.shape)
    w = weight.double().numpy()
    loss = float((w * (difference**2).mean(-1)).sum())
    return loss, w[..., None] * difference * 2 / prediction.shape[-1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_patch_gather(shape: Shape, dtype: torch.dtype, threads: int) -> None:
    tubelet, patch = shape[4:6]
    frames, index = clips(shape)
    out = library.patch_gather(frames, index, tubelet, patch, MEAN, STD, dtype)
    exact = (cubes(frames, index, tubelet, patch) / 255 - MEAN) / STD
    exact = np.moveaxis(exact, -1, 2).reshape(out.shape)
    assert out.dtype == dtype
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype]
    np.testing.assert_allclose(out.double().numpy(), exact, rtol=tolerance, atol=tolerance)


def assert_every_value(dtype: torch.dtype, patch: int) -> None:
    """Every value that a pixel can have, in every colour and at every place of a row."""
    width = 3 * patch  # colours fastest: value 3x + c + shift in row `shift`
    levels = torch.arange(width)[None] + torch.arange(0, 256 + patch)[:, None]
    rows = -(-levels.shape[0] // patch) * patch
    frames = (levels % 256).to(torch.uint8)
    frames = torch.cat([frames, frames[: rows - len(frames)]]).reshape(1, 1, rows, patch, 3)
    index = torch.arange(rows // patch, dtype=torch.int32)[None]
    out = library.patch_gather(frames, index, 1, patch, MEAN, STD, dtype)
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    expected = ((frames.float() / 255 - mean) / std).to(dtype)
    expected = expected.reshape(1, rows // patch, patch, patch, 3).permute(0, 1, 4, 2, 3)
    assert torch.equal(out, expected.reshape(out.shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("patch", [1, 5, 14, 16, 32])
def test_patch_gather_of_every_value(dtype: torch.dtype, patch: int, threads: int) -> None:
    assert_every_value(dtype, patch)


@pytest.mark.parametrize("levels", [("x86-64-v4",), ("x86-64-v4", "x86-64-v3")], ids=len)
def test_patch_gather_on_lower_instruction_sets(levels: tuple[str, ...], tmp_path: Path) -> None:
    with in_place_of_ours(without_levels("patch_gather.cpp", levels, tmp_path)):
        for dtype in (torch.float32, torch.bfloat16):
            for patch in (14, 16):
                assert_every_value(dtype, patch)


def test_patch_gather_takes_frames_that_are_not_contiguous() -> None:
    frames, index = clips(SHAPES[0])
    flipped = frames.transpose(2, 3).contiguous().transpose(2, 3)
    assert not flipped.is_contiguous()
    args = (index, 2, 16, MEAN, STD, torch.float32)
    assert torch.equal(library.patch_gather(flipped, *args), library.patch_gather(frames, *args))


def token_losses(*args: Any) -> Tensor:
    """Each token's loss, which the op sums up."""
    schema = torch.ops.videomae_fast.pixel_mse.default._schema.arguments[:-1]
    names = [argument.name for argument in schema]
    return pixels.losses(SimpleNamespace(**dict(zip(names, args, strict=True))), with_loss=True)[1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_loss(shape: Shape, normalize: bool, weighted: bool, threads: int) -> None:
    b, _, _, _, tubelet, patch, k = shape
    frames, index = clips(shape)
    random = torch.Generator().manual_seed(1)
    prediction = torch.randn(b, k, 3 * tubelet * patch**2, generator=random)
    weight = torch.rand(b, k, generator=random) if weighted else None
    ones = torch.ones(b, k) if weight is None else weight
    loss, grad = truth(prediction, frames, index, ones, tubelet, patch, normalize)
    args = (prediction, frames, index, weight, tubelet, patch, normalize, False)
    loss_sum, weight_sum = library.pixel_mse(*args)
    token_loss = token_losses(*args)
    assert loss_sum.item() == pytest.approx(loss, rel=1e-6)
    assert weight_sum.item() == pytest.approx(float(ones.double().sum()), rel=1e-6)
    assert (token_loss.double() * ones).sum().item() == pytest.approx(loss, rel=1e-6)
    ours = library.pixel_mse_backward(0.5, *args)
    np.testing.assert_allclose(ours.double().numpy(), 0.5 * grad, rtol=1e-5, atol=1e-7)
    whole = library.pixel_mse_with_gradient(*args, 0.5)
    for one, other in zip(whole, (loss_sum, weight_sum, ours), strict=True):
        assert torch.equal(one, other)


def test_nearly_flat_cube_keeps_its_digits() -> None:
    """One grey level of noise is a target of 22 sigma; a mean rounded too early would ruin it."""
    frames = torch.full((1, 2, 16, 16, 3), 200, dtype=torch.uint8)
    frames[0, 1, 7, 9] = 201
    index = torch.zeros((1, 1), dtype=torch.int32)
    prediction = torch.zeros(1, 1, 1536)
    loss, grad = truth(prediction, frames, index, torch.ones(1, 1), 2, 16, True)
    args = (prediction, frames, index, None, 2, 16, True, False)
    assert library.pixel_mse(*args)[0].item() == pytest.approx(loss, rel=1e-6)
    ours = library.pixel_mse_backward(1.0, *args).double().numpy()
    np.testing.assert_allclose(ours, grad, rtol=1e-5, atol=1e-9)
    assert abs(ours).max() == pytest.approx(22.6 * 2 / 1536, rel=0.01)


@pytest.mark.parametrize(("level", "flat"), [(200, True), (201, True), (255, False)])
def test_flat_cubes_are_ignored_on_request(level: int, flat: bool) -> None:
    frames = torch.full((1, 2, 16, 32, 3), 200, dtype=torch.uint8)
    frames[0, 0, 3, 3, 2] = level  # the blue channel of the first cube alone
    frames[:, :, :, 16:] = torch.arange(16, dtype=torch.uint8)[:, None] * 10
    index = torch.tensor([[0, 1]], dtype=torch.int32)
    prediction = torch.ones(1, 2, 1536)
    args = (prediction, frames, index, None, 2, 16, True)
    loss_sum, weight_sum = library.pixel_mse(*args, True)
    token_loss = token_losses(*args, True)
    assert weight_sum.item() == (1 if flat else 2)
    assert (token_loss[0, 0] == 0) == flat
    assert loss_sum.item() == pytest.approx(token_loss.sum().item())
    grad = library.pixel_mse_backward(1.0, *args, True)
    assert (grad[0, 0] == 0).all() == flat
    assert (grad[0, 1] != 0).any()
    assert library.pixel_mse(*args, False)[1].item() == 2


def test_weight_zero_counts_for_nothing() -> None:
    frames, index = clips(SHAPES[0])
    prediction = torch.zeros(2, 5, 1536)
    prediction[1, 2] = float("inf")
    weight = torch.ones(2, 5)
    weight[1, 2] = 0
    args = (prediction, frames, index, weight, 2, 16, True, False)
    loss_sum, weight_sum = library.pixel_mse(*args)
    assert loss_sum.isfinite()
    assert weight_sum == 9
    assert library.pixel_mse_backward(1.0, *args).isfinite().all()


def test_the_bits_do_not_depend_on_the_thread_count() -> None:
    frames, index = clips((4, 16, 64, 64, 2, 16, 100))
    prediction = torch.randn(4, 100, 1536)
    args = (prediction, frames, index, torch.rand(4, 100), 2, 16, True, False)
    results = []
    before = torch.get_num_threads()
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        results.append(
            (
                *library.pixel_mse(*args),
                token_losses(*args),
                library.pixel_mse_backward(1.0, *args),
                *library.pixel_mse_with_gradient(*args, 1.0),
            )
        )
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_a_position_out_of_range_is_named() -> None:
    frames, index = clips(SHAPES[0])
    index[1, 3] = 12
    prediction = torch.zeros(2, 5, 1536)
    for call in (
        lambda: library.patch_gather(frames, index, 2, 16, MEAN, STD, torch.float32),
        lambda: library.pixel_mse(prediction, frames, index, None, 2, 16, True, False),
    ):
        with pytest.raises(IndexError, match=r"position 12 \(clip 1, entry 3\)"):
            call()


def test_sizes_that_do_not_fit_are_refused() -> None:
    frames, index = clips(SHAPES[0])
    with pytest.raises(ValueError, match="refuses its arguments"):
        library.patch_gather(frames, index, 2, 10, MEAN, STD, torch.float32)
