"""patch_gather with every backend: against the fp64 truth and the reference of a dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.support.backends import ALL, FLOATS, KERNELS, assert_accurate, with_dtypes
from tests.support.cubes import SHAPES, cubes_by_hand, random_index
from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import IMAGENET_MEAN, IMAGENET_STD, patch_gather

pytestmark = pytest.mark.usefixtures("poisoned")


def inputs(shape: tuple[int, ...], k: int, device: str) -> tuple[torch.Tensor, torch.Tensor, Any]:
    b, t, h, w, p0, p = shape
    generator = torch.Generator().manual_seed(sum(shape))
    frames = torch.randint(0, 256, (b, t, h, w, 3), dtype=torch.uint8, generator=generator)
    tokens = (t // p0) * (h // p) * (w // p)
    index = torch.randint(tokens, (b, k), generator=generator, dtype=torch.int32)
    index[:, -1] = tokens - 1
    return frames.to(device), index.to(device), {"tubelet_size": p0, "patch_size": p}


@pytest.mark.parametrize(("impl", "dtype"), with_dtypes(FLOATS))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_accuracy(impl: str, shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    frames, index, sizes = inputs(shape, 3, device)
    out = patch_gather(frames, index, **sizes, dtype=dtype, impl=impl)
    reference = patch_gather(frames, index, **sizes, dtype=dtype, impl="reference")
    truth = patch_gather(frames, index, **sizes, dtype=torch.float64, impl="reference")
    assert_accurate(out, reference, truth)
    assert torch.equal(out, patch_gather(frames, index, **sizes, dtype=dtype, impl=impl))


@pytest.mark.parametrize("impl", KERNELS)
def test_large_cube(impl: str, device: str) -> None:
    """More pixels than one program takes, in a number that is no power of two."""
    frames, index, sizes = inputs((1, 3, 28, 28, 3, 28), 1, device)
    settings = {**sizes, "mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 0.5)}
    truth = patch_gather(frames, index, **settings, dtype=torch.float64, impl="reference")
    reference = patch_gather(frames, index, **settings, impl="reference")
    assert_accurate(patch_gather(frames, index, **settings, impl=impl), reference, truth)


@pytest.mark.parametrize("impl", KERNELS)
def test_layouts(impl: str, device: str) -> None:
    """Crops and time slices, channels first, a strided index: the values of the dense copies."""
    frames, index, sizes = inputs((2, 4, 32, 48, 2, 16), 4, device)
    crop = frames[:, 2:, 8:24, 16:]  # read in place
    channels_first = crop.permute(0, 1, 4, 2, 3).contiguous().permute(0, 1, 3, 4, 2)
    index = index % 2
    for layout in (crop, channels_first):
        assert not layout.is_contiguous()
        out = patch_gather(layout, index[:, ::2], **sizes, impl=impl)
        dense = patch_gather(
            crop.contiguous(), index[:, ::2].contiguous(), **sizes, impl="reference"
        )
        torch.testing.assert_close(out, dense, rtol=0, atol=1e-6)


@pytest.mark.parametrize("impl", KERNELS)
def test_nothing_to_do(impl: str, device: str) -> None:
    frames, index, sizes = inputs((2, 2, 16, 16, 2, 16), 1, device)
    assert patch_gather(frames, index[:, :0], **sizes, impl=impl).shape == (2, 0, 1536)


def test_refusals_say_why(interpreted: None, device: str) -> None:
    frames, index, sizes = inputs((1, 2, 16, 16, 2, 16), 1, device)
    with pytest.raises(BackendUnavailableError, match=r"not torch\.float64"):
        patch_gather(frames, index, **sizes, dtype=torch.float64, impl="triton")
    with pytest.raises(BackendUnavailableError, match="3 means and 3 deviations"):
        patch_gather(frames, index, **sizes, mean=(0.5,), std=(0.5,), impl="triton")


def test_wrong_tokens_are_noticed(
    interpreted: None, sabotage: Callable[..., None], device: str
) -> None:
    """Negative control: a kernel told one token per clip too many."""
    from videomae_fast.kernels import patch_gather as kernel

    frames, index, _ = inputs((2, 4, 32, 48, 2, 16), 3, device)
    truth = patch_gather(frames, index, dtype=torch.float64, impl="reference")
    reference = patch_gather(frames, index, impl="reference")
    sabotage(kernel, "patch_gather_kernel", 3, lambda per_clip: per_clip + 1)
    with pytest.raises(AssertionError, match="error"):
        assert_accurate(patch_gather(frames, index, impl="triton"), reference, truth)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_reference_by_hand(shape, dtype, random_frames):
    *size, tubelet, patch = shape
    frames = random_frames(*size)
    tokens = size[1] // tubelet * (size[2] // patch) * (size[3] // patch)
    index = random_index(size[0], tokens, 5)
    got = patch_gather(
        frames, index, tubelet_size=tubelet, patch_size=patch, dtype=dtype, impl="reference"
    )
    cubes = cubes_by_hand(frames, index, tubelet, patch).double() / 255
    mean, std = torch.tensor(IMAGENET_MEAN).double(), torch.tensor(IMAGENET_STD).double()
    truth = ((cubes - mean) / std).permute(0, 1, 5, 2, 3, 4).flatten(2)
    assert got.dtype == dtype
    torch.testing.assert_close(got, truth.to(dtype), atol=1e-6, rtol=torch.finfo(dtype).eps)


@pytest.mark.parametrize("impl", ALL)
def test_it_is_the_conv3d(impl, device, random_frames):
    frames = random_frames(2, 4, 32, 32)
    conv = torch.nn.Conv3d(3, 7, (2, 16, 16), stride=(2, 16, 16))
    video = (frames / 255 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    truth = conv(video.permute(0, 4, 1, 2, 3)).flatten(2).transpose(1, 2)
    every = torch.arange(8, dtype=torch.int32).expand(2, -1)
    patches = patch_gather(frames.to(device), every.to(device), impl=impl).cpu()
    got = torch.nn.functional.linear(patches, conv.weight.flatten(1), conv.bias)
    torch.testing.assert_close(got, truth, rtol=1e-5, atol=1e-5)
