"""The patch-gather kernel against the fp64 truth and the reference of its dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import patch_gather

# batch, frames, height, width, tubelet, patch: the official patches, odd sizes, one pixel
SHAPES = [(2, 4, 32, 48, 2, 16), (1, 2, 14, 28, 2, 14), (3, 3, 10, 15, 3, 5), (2, 2, 3, 2, 1, 1)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def inputs(shape: tuple[int, ...], k: int, device: str) -> tuple[torch.Tensor, torch.Tensor, Any]:
    b, t, h, w, p0, p = shape
    generator = torch.Generator().manual_seed(sum(shape))
    frames = torch.randint(0, 256, (b, t, h, w, 3), dtype=torch.uint8, generator=generator)
    tokens = (t // p0) * (h // p) * (w // p)
    index = torch.randint(tokens, (b, k), generator=generator, dtype=torch.int32)
    index[:, -1] = tokens - 1
    return frames.to(device), index.to(device), {"tubelet_size": p0, "patch_size": p}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_accuracy(
    shape: tuple[int, ...], dtype: torch.dtype, device: str, assert_accurate: Callable[..., None]
) -> None:
    frames, index, sizes = inputs(shape, 3, device)
    out = patch_gather(frames, index, **sizes, dtype=dtype, impl="triton")
    reference = patch_gather(frames, index, **sizes, dtype=dtype, impl="reference")
    truth = patch_gather(frames, index, **sizes, dtype=torch.float64, impl="reference")
    assert_accurate(out, reference, truth)
    assert torch.equal(out, patch_gather(frames, index, **sizes, dtype=dtype, impl="triton"))


def test_large_cube(device: str, assert_accurate: Callable[..., None]) -> None:
    """More pixels than one program takes, in a number that is no power of two."""
    frames, index, sizes = inputs((1, 3, 28, 28, 3, 28), 1, device)
    settings = {**sizes, "mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 0.5)}
    truth = patch_gather(frames, index, **settings, dtype=torch.float64, impl="reference")
    reference = patch_gather(frames, index, **settings, impl="reference")
    assert_accurate(patch_gather(frames, index, **settings, impl="triton"), reference, truth)


def test_layouts(device: str) -> None:
    """Crops and time slices, channels first, a strided index: the values of the dense copies."""
    frames, index, sizes = inputs((2, 4, 32, 48, 2, 16), 4, device)
    crop = frames[:, 2:, 8:24, 16:]  # read in place
    channels_first = crop.permute(0, 1, 4, 2, 3).contiguous().permute(0, 1, 3, 4, 2)
    index = index % 2
    for layout in (crop, channels_first):
        assert not layout.is_contiguous()
        out = patch_gather(layout, index[:, ::2], **sizes, impl="triton")
        dense = patch_gather(
            crop.contiguous(), index[:, ::2].contiguous(), **sizes, impl="reference"
        )
        torch.testing.assert_close(out, dense, rtol=0, atol=1e-6)


def test_nothing_to_do(device: str) -> None:
    frames, index, sizes = inputs((2, 2, 16, 16, 2, 16), 1, device)
    assert patch_gather(frames, index[:, :0], **sizes, impl="triton").shape == (2, 0, 1536)


def test_refusals_say_why(device: str) -> None:
    frames, index, sizes = inputs((1, 2, 16, 16, 2, 16), 1, device)
    with pytest.raises(BackendUnavailableError, match=r"not torch\.float64"):
        patch_gather(frames, index, **sizes, dtype=torch.float64, impl="triton")
    with pytest.raises(BackendUnavailableError, match="3 means and 3 deviations"):
        patch_gather(frames, index, **sizes, mean=(0.5,), std=(0.5,), impl="triton")


def test_wrong_tokens_are_noticed(
    sabotage: Callable[..., None], device: str, assert_accurate: Callable[..., None]
) -> None:
    """Negative control: a kernel told one token per clip too many."""
    from videomae_fast.kernels import patch_gather as kernel

    frames, index, _ = inputs((2, 4, 32, 48, 2, 16), 3, device)
    truth = patch_gather(frames, index, dtype=torch.float64, impl="reference")
    reference = patch_gather(frames, index, impl="reference")
    sabotage(kernel, "patch_gather_kernel", 3, lambda per_clip: per_clip + 1)
    with pytest.raises(AssertionError, match="error"):
        assert_accurate(patch_gather(frames, index, impl="triton"), reference, truth)
