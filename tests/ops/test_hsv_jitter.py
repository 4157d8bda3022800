"""HSV jitter: the ends of its rules; OpenCV's bytes are in test_detection_views.py."""

from __future__ import annotations

import colorsys

import pytest
import torch

from videomae_fast.ops.hsv_jitter import hsv_jitter


def test_near_the_exact_colours() -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, 1, 9, 11, 3), dtype=torch.uint8, generator=generator)
    shifts = torch.tensor([[7, 20, -15], [-10, -26, 26]])
    found = hsv_jitter(frames, shifts)
    for clip, out, (hue, saturation, value) in zip(frames, found, shifts.tolist(), strict=True):
        for pixel, got in zip(clip.view(-1, 3).tolist(), out.view(-1, 3).tolist(), strict=True):
            h, s, v = colorsys.rgb_to_hsv(*(level / 255 for level in pixel))
            s, v = (min(max(x + y / 255, 0), 1) for x, y in ((s, saturation), (v, value)))
            wanted = [255 * x for x in colorsys.hsv_to_rgb((h + hue / 180) % 1, s, v)]
            # Hues have 180 steps, so that a channel may be off by half of 1/30 of its range.
            assert got == pytest.approx(wanted, abs=7)


def test_grey_has_no_hue_and_the_ends_hold() -> None:
    frames = torch.tensor([0, 100, 255], dtype=torch.uint8)[:, None].expand(1, 1, 1, 3, 3)
    moved = hsv_jitter(frames, torch.tensor([[10, 0, 26]]))
    assert moved.tolist()[0][0][0] == [[26] * 3, [126] * 3, [255] * 3]
    assert hsv_jitter(frames, torch.tensor([[0, 0, -26]]))[0, 0, 0, 0].tolist() == [0, 0, 0]


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
