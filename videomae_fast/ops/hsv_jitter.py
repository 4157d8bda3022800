"""Shifts of hue, saturation and value: OpenCV's 8-bit arithmetic, without OpenCV, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.ops._declare import declare, native, triton
from videomae_fast.ops._native import augment

_HUES = 180
# Of a pixel's value, its least channel and the two between, which are red, green and blue in each
# sixth of the circle of hues.
_CHANNELS = ((0, 3, 1), (2, 0, 1), (1, 0, 3), (1, 2, 0), (3, 1, 0), (0, 1, 2))


def hsv_jitter(frames: Tensor, shifts: Tensor, *, impl: str = "auto") -> Tensor:
    """Clips with their hue, saturation and value moved.

    To HSV in integers with 12-bit reciprocals; back in fp32 with fused multiply-add, truncated.

    Args:
        frames: uint8 [B, T, H, W, 3], RGB.
        shifts: integers [B, 3], of each clip: hue in steps of 2 degrees, around the circle of 180;
            saturation and value in 0..255, which end there.
        impl: "auto", "triton" (CUDA), "native" (CPU) or "reference": the same bytes.

    Returns:
        uint8 [B, T, H, W, 3].

    Raises:
        ValueError: wrong shapes or dtypes.
        BackendUnavailableError: `impl` can't run here.

    Source: the official AVA code, which calls OpenCV frame by frame; found by experiment against
    OpenCV 4.10.
    """
    if frames.ndim != 5 or frames.shape[-1] != 3 or frames.dtype != torch.uint8:
        raise ValueError(
            f"frames must be uint8 [B, T, H, W, 3], got {frames.dtype} {list(frames.shape)}"
        )
    if shifts.shape != (len(frames), 3) or shifts.is_floating_point():
        raise ValueError(
            f"shifts must be integers [B={len(frames)}, 3], got {shifts.dtype} {list(shifts.shape)}"
        )
    out: Tensor = _HSV_JITTER(impl, frames, shifts.to(frames.device, torch.int64))
    return out


def _reference(frames: Tensor, shifts: Tensor) -> Tensor:
    hue, saturation, value = _to_hsv(frames)
    by = shifts.int()[:, :, None, None, None]
    hue = (hue + by[:, 0]) % _HUES
    saturation = (saturation + by[:, 1]).clamp(0, 255)
    value = (value + by[:, 2]).clamp(0, 255)
    return _to_rgb(hue, saturation, value)


def _to_hsv(frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """int32 each: hue 0..179, saturation and value 0..255."""
    red, green, blue = frames.int().unbind(-1)
    value = frames.amax(-1).int()
    spread = value - frames.amin(-1).int()
    level = torch.arange(256, dtype=torch.float64, device=frames.device).clamp(min=1)
    for_saturation = ((255 << 12) / level).round().int()
    for_hue = ((_HUES << 12) / (6 * level)).round().int()
    saturation = (spread * for_saturation[value] + 2048) >> 12
    hue = torch.where(
        value == red,
        green - blue,
        torch.where(value == green, blue - red + 2 * spread, red - green + 4 * spread),
    )
    hue = (hue * for_hue[spread] + 2048) >> 12
    return torch.where(hue < 0, hue + _HUES, hue), saturation, value


def _to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    sixth = hue.float() * (6 / _HUES)
    sector = sixth.floor()
    beyond = sixth - sector
    share, level = saturation.float() * (1 / 255), value.float() * (1 / 255)
    levels = torch.stack(
        [
            level,
            level * (1 - share),
            level * _one_minus(share, beyond),
            level * _one_minus(share, 1 - beyond),
        ],
        -1,
    )
    channels = torch.tensor(_CHANNELS, device=hue.device)[sector.long() % 6]
    return (levels.gather(-1, channels) * 255).clamp(0, 255).to(torch.uint8)


def _one_minus(a: Tensor, b: Tensor) -> Tensor:
    """``1 - a * b`` in fp32 with one rounding: the product of two is exact in fp64."""
    return (1 - a.double() * b.double()).float()


def _unfit(frames: Tensor) -> str | None:
    if frames[:1].numel() >= 2**31:
        return "the kernel takes clips of less than 2**31 values"
    return None


_HSV_JITTER = declare(
    "hsv_jitter",
    _reference,
    native=native(augment.hsv_jitter),
    triton=triton("hsv_jitter", "hsv_jitter", unfit=_unfit),
)
