"""HSV jitter: the ends of its rules; OpenCV's bytes are in test_detection_views.py."""

from __future__ import annotations

import colorsys

import pytest
import torch

from tests.support.backends import NATIVE, REFERENCE, same_bits
from videomae_fast.ops import hsv_jitter

BOTH = [REFERENCE, NATIVE]


@pytest.mark.parametrize("impl", BOTH)
def test_near_the_exact_colours(impl: str) -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, 1, 9, 11, 3), dtype=torch.uint8, generator=generator)
    shifts = torch.tensor([[7, 20, -15], [-10, -26, 26]])
    found = hsv_jitter(frames, shifts, impl=impl)
    for clip, out, (hue, saturation, value) in zip(frames, found, shifts.tolist(), strict=True):
        for pixel, got in zip(clip.view(-1, 3).tolist(), out.view(-1, 3).tolist(), strict=True):
            h, s, v = colorsys.rgb_to_hsv(*(level / 255 for level in pixel))
            s, v = (min(max(x + y / 255, 0), 1) for x, y in ((s, saturation), (v, value)))
            wanted = [255 * x for x in colorsys.hsv_to_rgb((h + hue / 180) % 1, s, v)]
            # Hues have 180 steps, so that a channel may be off by half of 1/30 of its range.
            assert got == pytest.approx(wanted, abs=7)


@pytest.mark.parametrize("impl", BOTH)
def test_grey_has_no_hue_and_the_ends_hold(impl: str) -> None:
    frames = torch.tensor([0, 100, 255], dtype=torch.uint8)[:, None].expand(1, 1, 1, 3, 3)
    moved = hsv_jitter(frames, torch.tensor([[10, 0, 26]]), impl=impl)
    assert moved.tolist()[0][0][0] == [[26] * 3, [126] * 3, [255] * 3]
    moved = hsv_jitter(frames, torch.tensor([[0, 0, -26]]), impl=impl)
    assert moved[0, 0, 0, 0].tolist() == [0, 0, 0]


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("impl", [NATIVE])
def test_bytes_are_those_of_the_reference(impl: str) -> None:
    """Of random colours, of the ends of all channels, and of views of other memory."""
    ends = torch.tensor([0, 1, 2, 90, 127, 128, 253, 254, 255], dtype=torch.uint8)
    colours = torch.cartesian_prod(ends, ends, ends).view(1, 1, 27, 27, 3)
    shifts = [[0, 0, 0], [10, 26, 26], [-10, -26, -26], [181, 999, -999], [-999, -999, 999]]
    for shift in shifts:
        moved = torch.tensor([shift])
        found = hsv_jitter(colours, moved, impl=impl)
        assert torch.equal(found, hsv_jitter(colours, moved, impl="reference")), shift
    frames = torch.randint(0, 256, (5, 2, 113, 97, 3), dtype=torch.uint8)
    every = torch.tensor(shifts)
    wanted = hsv_jitter(frames, every, impl="reference")
    same_bits(lambda: [hsv_jitter(frames, every, impl=impl)])
    assert torch.equal(hsv_jitter(frames, every, impl=impl), wanted)
    part = frames[:, :, 3:60, 5:70]
    assert torch.equal(hsv_jitter(part, every, impl=impl), wanted[:, :, 3:60, 5:70])
    none = hsv_jitter(frames[:0], every[:0], impl=impl)
    assert none.shape == (0, 2, 113, 97, 3)


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
