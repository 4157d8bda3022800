"""HSV jitter: the ends of its rules; OpenCV's bytes are in test_detection_views.py."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from tests.support.backends import ALL, KERNELS, NATIVE, TRITON, same_bits
from videomae_fast.ops import hsv_jitter


@pytest.mark.parametrize("impl", ALL)
def test_near_the_exact_colours(impl: str, device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, 1, 9, 11, 3), dtype=torch.uint8, generator=generator)
    shifts = torch.tensor([[7, 20, -15], [-10, -26, 26]])
    found = hsv_jitter(frames.to(device), shifts, impl=impl)
    for clip, out, (hue, saturation, value) in zip(frames, found, shifts.tolist(), strict=True):
        for pixel, got in zip(clip.view(-1, 3).tolist(), out.view(-1, 3).tolist(), strict=True):
            h, s, v = colorsys.rgb_to_hsv(*(level / 255 for level in pixel))
            s, v = (min(max(x + y / 255, 0), 1) for x, y in ((s, saturation), (v, value)))
            wanted = [255 * x for x in colorsys.hsv_to_rgb((h + hue / 180) % 1, s, v)]
            # Hues have 180 steps, so that a channel may be off by half of 1/30 of its range.
            assert got == pytest.approx(wanted, abs=7)


@pytest.mark.parametrize("impl", ALL)
def test_grey_has_no_hue_and_the_ends_hold(impl: str, device: str) -> None:
    frames = (
        torch.tensor([0, 100, 255], dtype=torch.uint8)[:, None].expand(1, 1, 1, 3, 3).to(device)
    )
    moved = hsv_jitter(frames, torch.tensor([[10, 0, 26]]), impl=impl)
    assert moved.tolist()[0][0][0] == [[26] * 3, [126] * 3, [255] * 3]
    moved = hsv_jitter(frames, torch.tensor([[0, 0, -26]]), impl=impl)
    assert moved[0, 0, 0, 0].tolist() == [0, 0, 0]


SHIFTS = [[0, 0, 0], [10, 26, 26], [-10, -26, -26], [181, 999, -999], [-999, -999, 999]]


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("impl", KERNELS)
def test_bytes_are_those_of_the_reference(impl: str, device: str) -> None:
    """Of random colours, of the ends of all channels, and of views of other memory."""
    ends = torch.tensor([0, 1, 2, 90, 127, 128, 253, 254, 255], dtype=torch.uint8)
    colours = torch.cartesian_prod(ends, ends, ends).view(1, 1, 27, 27, 3).to(device)
    every = torch.tensor(SHIFTS, device=device)
    colours = colours.expand(len(every), -1, -1, -1, -1)
    found = hsv_jitter(colours, every, impl=impl)
    assert torch.equal(found, hsv_jitter(colours, every, impl="reference"))
    frames = torch.randint(0, 256, (5, 2, 33, 27, 3), dtype=torch.uint8, device=device)
    wanted = hsv_jitter(frames, every, impl="reference")
    assert torch.equal(hsv_jitter(frames, every, impl=impl), wanted)
    part = hsv_jitter(frames[:, :, 3:20, 5:25], every, impl=impl)
    assert part.is_contiguous()
    assert torch.equal(part, wanted[:, :, 3:20, 5:25])
    none = hsv_jitter(frames[:0], every[:0], impl=impl)
    assert none.shape == (0, 2, 33, 27, 3)


@pytest.mark.parametrize("impl", KERNELS)
def test_all_hues_and_saturations(impl: str, device: str) -> None:
    """Every share of grey, for colours all around the circle: each product that is rounded."""
    levels = torch.arange(256, dtype=torch.uint8)
    low, middle = torch.meshgrid(levels, levels[::5], indexing="ij")
    high = torch.full_like(low, 255)
    sixths = [(high, middle, low), (middle, high, low), (low, high, middle)]
    sixths += [(low, middle, high), (middle, low, high), (high, low, middle)]
    frames = torch.stack([torch.stack(one, -1) for one in sixths])[:, None].to(device)
    shifts = torch.tensor([[k, 0, -k] for k in range(6)], device=device)
    found = hsv_jitter(frames, shifts, impl=impl)
    assert torch.equal(found, hsv_jitter(frames, shifts, impl="reference"))


@pytest.mark.parametrize("impl", [NATIVE])
def test_any_number_of_threads_gives_the_same_bytes(impl: str) -> None:
    frames = torch.randint(0, 256, (5, 2, 113, 97, 3), dtype=torch.uint8)
    same_bits(lambda: [hsv_jitter(frames, torch.tensor(SHIFTS), impl=impl)])


@pytest.mark.parametrize("impl", [TRITON])
@pytest.mark.parametrize("argument", [0, 1])
def test_a_wrong_kernel_is_noticed(
    argument: int, impl: str, device: str, kernels: ModuleType, sabotage: Callable[..., None]
) -> None:
    """Other frames, or other shifts, are other bytes."""
    frames = torch.randint(1, 255, (1, 1, 9, 11, 3), dtype=torch.uint8, device=device)
    shifts = torch.tensor([[3, 4, 5]], device=device)
    wanted = hsv_jitter(frames, shifts, impl="reference")
    sabotage(kernels, "jitter_kernel", argument, lambda given: given + 1)
    assert not torch.equal(hsv_jitter(frames, shifts, impl=impl), wanted)


def test_clips_have_their_own_shifts() -> None:
    frames = torch.randint(0, 256, (2, 2, 4, 5, 3), dtype=torch.uint8)
    shifts = torch.tensor([[3, 4, 5], [-3, -4, -5]])
    both = hsv_jitter(frames, shifts)
    for k in range(2):
        assert torch.equal(both[k : k + 1], hsv_jitter(frames[k : k + 1], shifts[k : k + 1]))


def test_what_does_not_fit_is_refused() -> None:
    frames = torch.zeros(1, 1, 2, 2, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match="frames must be uint8"):
        hsv_jitter(frames[0], torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="shifts must be integers"):
        hsv_jitter(frames, torch.zeros(1, 3))
