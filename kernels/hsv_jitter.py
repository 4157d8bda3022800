"""Shifts of hue, saturation and value of clips: OpenCV's 8-bit arithmetic, the reference's bytes.

To HSV in integers with 12-bit reciprocals; back in fp32, truncated, where nothing is fused but what
the reference rounds once, by way of fp64. A lane has a pixel: the three loads and stores of a warp
share their lines, so memory is read once and written once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from videomae_fast.arguments import Arguments
from videomae_fast.kernels.host import cdiv

_HUES = tl.constexpr(180)
# Numerators of the reciprocals: of a channel's share of the value, and of a sixth of the circle
_SATURATION = tl.constexpr(255 << 12)
_HUE = tl.constexpr((180 << 12) // 6)


@dataclass(frozen=True)
class Launch:
    """Launch choices; modelled, not yet measured on a GPU.

    Attributes:
        pixels: that a program makes: 4 a lane.
        num_warps: of a program.
    """

    pixels: int = 512
    num_warps: int = 4


LAUNCH = Launch()


@triton.jit
def _rounded(numerator: tl.constexpr, b_level):
    """int32 `numerator` / level, rounded; no level from 1 to 255 leaves a half of these."""
    b_level = tl.maximum(b_level, 1)
    return (2 * numerator + b_level) // (2 * b_level)


@triton.jit
def _one_minus(b_first, b_second):
    """fp32 ``1 - first * second``, whose product is exact in fp64."""
    return (1.0 - b_first.to(tl.float64) * b_second.to(tl.float64)).to(tl.float32)


@triton.jit
def _bounded(b_level, shift):
    """A level moved, fp32 share of 255."""
    b_moved = tl.minimum(tl.maximum(b_level + shift, 0), 255)
    return b_moved.to(tl.float32) * (1 / 255)


@triton.jit
def _byte(b_share):
    """A share of 255 as a level, truncated."""
    return tl.minimum(tl.maximum(b_share * 255.0, 0.0), 255.0).to(tl.int32).to(tl.uint8)


@triton.jit
def jitter_kernel(
    frames_ptr,  # [B, pixels, 3] uint8
    shifts_ptr,  # [B, 3] int64: hue, saturation, value
    out_ptr,  # as the frames
    pixels,  # of a clip: T * height * width
    PIXELS: tl.constexpr,
):
    i_clip = tl.program_id(1)
    o_pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)  # [PIXELS]
    m_pixel = o_pixel < pixels
    o_byte = (i_clip.to(tl.int64) * pixels + o_pixel) * 3
    p_shift = shifts_ptr + i_clip * 3
    # Within a turn of hues, and as far as levels can go: sums stay small
    by_hue = (tl.load(p_shift) % _HUES + _HUES).to(tl.int32)
    by_saturation = tl.minimum(tl.maximum(tl.load(p_shift + 1), -255), 255).to(tl.int32)
    by_value = tl.minimum(tl.maximum(tl.load(p_shift + 2), -255), 255).to(tl.int32)

    b_red = tl.load(frames_ptr + o_byte, mask=m_pixel, other=0).to(tl.int32)
    b_green = tl.load(frames_ptr + o_byte + 1, mask=m_pixel, other=0).to(tl.int32)
    b_blue = tl.load(frames_ptr + o_byte + 2, mask=m_pixel, other=0).to(tl.int32)
    b_top = tl.maximum(tl.maximum(b_red, b_green), b_blue)
    b_spread = b_top - tl.minimum(tl.minimum(b_red, b_green), b_blue)
    b_around = tl.where(
        b_top == b_red,
        b_green - b_blue,
        tl.where(b_top == b_green, b_blue - b_red + 2 * b_spread, b_red - b_green + 4 * b_spread),
    )
    b_hue = (b_around * _rounded(_HUE, b_spread) + 2048) >> 12
    b_hue = (tl.where(b_hue < 0, b_hue + _HUES, b_hue) + by_hue) % _HUES
    b_saturation = (b_spread * _rounded(_SATURATION, b_top) + 2048) >> 12

    b_share, b_level = _bounded(b_saturation, by_saturation), _bounded(b_top, by_value)
    b_sixth = b_hue.to(tl.float32) * (6 / 180)
    b_sector = b_sixth.to(tl.int32)
    b_beyond = b_sixth - b_sector.to(tl.float32)
    b_high, b_low = _byte(b_level), _byte(b_level * (1.0 - b_share))
    b_falling = _byte(b_level * _one_minus(b_share, b_beyond))
    b_rising = _byte(b_level * _one_minus(b_share, 1.0 - b_beyond))
    # Which is red, green and blue in each sixth of the circle of hues
    b_red = tl.where(b_sector == 1, b_falling, tl.where(b_sector == 4, b_rising, b_low))
    b_red = tl.where((b_sector == 0) | (b_sector == 5), b_high, b_red)
    b_green = tl.where(b_sector == 0, b_rising, tl.where(b_sector == 3, b_falling, b_low))
    b_green = tl.where((b_sector == 1) | (b_sector == 2), b_high, b_green)
    b_blue = tl.where(b_sector == 2, b_rising, tl.where(b_sector == 5, b_falling, b_low))
    b_blue = tl.where((b_sector == 3) | (b_sector == 4), b_high, b_blue)
    tl.store(out_ptr + o_byte, b_red, mask=m_pixel)
    tl.store(out_ptr + o_byte + 1, b_green, mask=m_pixel)
    tl.store(out_ptr + o_byte + 2, b_blue, mask=m_pixel)


def hsv_jitter(args: Arguments) -> Tensor:
    """uint8 [B, T, H, W, 3], contiguous, with colours moved by int64 [B, 3]."""
    frames = args.frames.contiguous()
    out = torch.empty_like(frames)
    if out.numel() == 0:
        return out
    batch, pixels = len(frames), frames[0].numel() // 3
    with torch.cuda.device_of(frames):
        jitter_kernel[cdiv(pixels, LAUNCH.pixels), batch](
            frames,
            args.shifts.contiguous(),
            out,
            pixels,
            PIXELS=LAUNCH.pixels,
            num_warps=LAUNCH.num_warps,
            enable_fp_fusion=False,  # products are rounded before sums, as the reference has them
        )
    return out
