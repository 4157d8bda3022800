"""Bilinear resize: OpenCV's bytes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.support.backends import ALL, KERNELS
from tests.support.downstream import downstream
from videomae_fast.ops.bilinear_resize import bilinear_resize

GOLDEN = downstream("opencv_resize").tensors


@pytest.mark.parametrize("impl", ALL)
@pytest.mark.parametrize("k", range(7))
def test_bytes_are_opencvs(k: int, impl: str, device: str) -> None:
    image, wanted = (GOLDEN[f"{k}.{name}"].to(device) for name in ("image", "resized"))
    found = bilinear_resize(torch.stack([image, image.flip(0)]), tuple(wanted.shape[:2]), impl=impl)
    assert torch.equal(found[0], wanted)


@pytest.mark.parametrize("impl", ALL)
@pytest.mark.parametrize("size", [(1, 1), (3, 50), (41, 7), (40, 60), (20, 30)])
def test_near_the_exact_interpolation(size: tuple[int, int], impl: str, device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    clip = torch.randint(0, 256, (2, 20, 30, 3), dtype=torch.uint8, generator=generator).to(device)
    planes = F.interpolate(clip.permute(0, 3, 1, 2).double(), size, mode="bilinear")
    apart = bilinear_resize(clip, size, impl=impl).double() - planes.permute(0, 2, 3, 1)
    assert apart.abs().max() < 1.1


def test_the_same_size_is_left_alone() -> None:
    clip = torch.zeros(1, 4, 5, 3, dtype=torch.uint8)
    assert bilinear_resize(clip, (4, 5)) is clip


def test_what_can_not_be_resized_is_refused() -> None:
    with pytest.raises(ValueError, match="must be uint8"):
        bilinear_resize(torch.zeros(1, 4, 5, 3), (2, 2))
    with pytest.raises(ValueError, match="can't be resized"):
        bilinear_resize(torch.zeros(1, 4, 5, 3, dtype=torch.uint8), (0, 2))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("impl", KERNELS)
@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(1, 1, (5, 3)), (9, 2, (3, 7)), (33, 17, (60, 9)), (8, 8, (8, 9)), (40, 90, (11, 70))],
)
def test_the_references_bytes(
    height: int, width: int, size: tuple[int, int], impl: str, device: str
) -> None:
    generator = torch.Generator().manual_seed(1)
    clip = torch.randint(0, 256, (3, height, width, 3), dtype=torch.uint8, generator=generator)
    clip = clip.to(device)
    for frames in (clip, clip.flip(2), clip[1::2], clip[:0]):  # also what is not contiguous
        found = bilinear_resize(frames, size, impl=impl)
        assert found.is_contiguous()
        assert torch.equal(found, bilinear_resize(frames, size, impl="reference"))
