"""RandAugment's operations on uint8 frames: Pillow's bytes, without Pillow, on any device.

Source: dataset/rand_augment.py of the official V2 code, which calls Pillow frame by frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from videomae_fast.arguments import Arguments
from videomae_fast.ops._declare import declare, native
from videomae_fast.ops._native import augment
from videomae_fast.ops.augment_plan import (
    AFFINE,
    KINDS,
    NAMES,
    Matrix,
    Region,
    check_operations,
    operation_rows,
    rows_tensor,
)

FILL: Final = 128
"""Grey level of what comes in from outside of a frame."""


def rand_augment(
    frames: Tensor, operations: Sequence[tuple[str, float | None]], *, impl: str = "auto"
) -> Tensor:
    """Frames after the operations, one after the other, each rounded to grey levels.

    Args:
        frames: uint8 [T, H, W, 3]. All frames get the same operations; statistics (of contrast,
            auto_contrast and equalize) are each frame's own.
        operations: (name, argument): auto_contrast, equalize, invert (None); rotate (degrees);
            posterize (bits kept, 0 to 8); solarize (threshold); solarize_add (what is added below
            128); color, contrast, brightness, sharpness (factor); shear_x, shear_y (slope);
            translate_x, translate_y (share of the width, height).
        impl: "auto", "native" (CPU) or "reference": the same bytes.

    Returns:
        uint8 [T, H, W, 3].

    Raises:
        ValueError: frames of a wrong shape or dtype, an unknown operation, or an argument that is
            missing or not wanted.
        BackendUnavailableError: `impl` can't run here.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != torch.uint8:
        raise ValueError(
            f"frames must be uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}"
        )
    check_operations(operations)
    if not operations:
        return frames
    kinds = [NAMES.index(name) for name, _ in operations]
    arguments = [0.0 if argument is None else float(argument) for _, argument in operations]
    out: Tensor = _RAND_AUGMENT(impl, frames, kinds, arguments)
    return out


def _reference(frames: Tensor, kinds: Sequence[int], arguments: Sequence[float]) -> Tensor:
    for row in _rows(frames.shape, kinds, arguments):
        frames = changed_by(frames, row)
    return frames


def _by_library(args: Arguments) -> Tensor:
    rows = _rows(args.frames.shape, args.kinds, args.arguments)
    return augment.rand_augment(args.frames, rows_tensor(rows))


def _rows(
    shape: Sequence[int], kinds: Sequence[int], arguments: Sequence[float]
) -> list[list[float]]:
    height, width = shape[1:3]
    operations = list(zip([NAMES[kind] for kind in kinds], arguments, strict=True))
    return operation_rows(operations, height, width, Region(0, height, 0, width))


def changed_by(frames: Tensor, row: Sequence[float]) -> Tensor:
    """Frames after an operation, a row of :func:`~.augment_plan.operation_rows`; all of them."""
    kind, argument = int(row[0]), row[1]
    if kind == AFFINE:
        a, b, c, d, e, f = row[2:8]
        return _affine(frames, (a, b, c, d, e, f))
    name = KINDS[kind]
    return _PLAIN[name](frames) if name in _PLAIN else _WITH_ARGUMENT[name](frames, argument)


def _auto_contrast(frames: Tensor) -> Tensor:
    """Stretches each channel of each frame to 0..255."""
    low = frames.amin((1, 2), keepdim=True).double()
    high = frames.amax((1, 2), keepdim=True).double()
    # Not 255.0 / ...: torch multiplies a number by the reciprocal, which is another value.
    scale = torch.full_like(low, 255.0) / (high - low)
    level = torch.arange(256, dtype=torch.float64, device=frames.device)[None, :, None]
    table = (level * scale[:, 0] - low[:, 0] * scale[:, 0]).trunc().clamp(0, 255)
    flat = (high <= low)[:, 0]  # [T, 1, 3]
    return _look_up(frames, torch.where(flat, level, table))


def _equalize(frames: Tensor) -> Tensor:
    """Evens out the histogram of each channel of each frame."""
    t, h, w, _ = frames.shape
    planes = frames.permute(0, 3, 1, 2).reshape(t * 3, h * w).long()
    counts = torch.zeros(t * 3, 256, dtype=torch.int64, device=frames.device)
    counts.scatter_add_(1, planes, torch.ones_like(planes))
    highest = planes.amax(1, keepdim=True)
    step = (h * w - counts.gather(1, highest)) // 255
    below = counts.cumsum(1) - counts
    table = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    level = torch.arange(256, device=frames.device)[None]
    same = ((counts > 0).sum(1, keepdim=True) <= 1) | (step == 0)
    table = torch.where(same, level, table)
    return _look_up(frames, table.view(t, 3, 256).transpose(1, 2))


def _look_up(frames: Tensor, table: Tensor) -> Tensor:
    """Levels through a table [T, 256, 3] of each frame's channels."""
    t, h, w, _ = frames.shape
    levels = table.to(torch.uint8).gather(1, frames.reshape(t, h * w, 3).long())
    return levels.view(t, h, w, 3)


def _invert(frames: Tensor) -> Tensor:
    return 255 - frames


def _posterize(frames: Tensor, bits: float) -> Tensor:
    return frames & (0xFF00 >> int(bits) & 0xFF)


def _solarize(frames: Tensor, threshold: float) -> Tensor:
    return torch.where(frames.int() < int(threshold), frames, 255 - frames)


def _solarize_add(frames: Tensor, more: float) -> Tensor:
    brighter = (frames.int() + int(more)).clamp(0, 255).to(torch.uint8)
    return torch.where(frames < 128, brighter, frames)


def _grey(frames: Tensor) -> Tensor:
    """ITU-R 601 luma in 16-bit fixed point, int32 [T, H, W, 1]."""
    weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32, device=frames.device)
    return ((frames.int() * weights).sum(-1, keepdim=True) + 32768) >> 16


def _blend(ground: Tensor, frames: Tensor, factor: float) -> Tensor:
    """``ground + factor * (frames - ground)`` in fp32, cut off at 0 and 255, truncated."""
    ground = ground.float()
    exact = ground + torch.tensor(factor, dtype=torch.float32) * (frames.float() - ground)
    return exact.clamp(0, 255).to(torch.uint8)


def _color(frames: Tensor, factor: float) -> Tensor:
    return _blend(_grey(frames), frames, factor)


def _contrast(frames: Tensor, factor: float) -> Tensor:
    mean = _grey(frames).double().mean((1, 2), keepdim=True)
    return _blend((mean + 0.5).floor(), frames, factor)


def _brightness(frames: Tensor, factor: float) -> Tensor:
    return _blend(torch.zeros((), device=frames.device), frames, factor)


def _sharpness(frames: Tensor, factor: float) -> Tensor:
    """Away from, or towards, the mean of 3 x 3 pixels whose middle counts 5 times."""
    h, w = frames.shape[1:3]
    smooth = frames.clone()
    if h > 2 and w > 2:
        levels = frames.int()
        total = 4 * levels[:, 1:-1, 1:-1]
        for i in range(3):
            for j in range(3):
                total = total + levels[:, i : h - 2 + i, j : w - 2 + j]
        smooth[:, 1:-1, 1:-1] = (total.float() / 13 + 0.5).floor().to(torch.uint8)
    return _blend(smooth, frames, factor)


def _affine(frames: Tensor, matrix: Matrix) -> Tensor:
    """Each output pixel's centre maps to a place of the input, which is read bicubically.

    The cubic has a = -1, is summed across and then down in fp64, and truncated; places outside of
    the frame are `FILL`.
    """
    h, w = frames.shape[1:3]
    device = frames.device
    a, b, c, d, e, f = matrix
    y = (torch.arange(h, dtype=torch.float64, device=device) + 0.5)[:, None]
    x = (torch.arange(w, dtype=torch.float64, device=device) + 0.5)[None]
    at_x, at_y = a * x + b * y + c, d * x + e * y + f
    inside = (at_x >= 0) & (at_x < w) & (at_y >= 0) & (at_y < h)
    at_x, at_y = at_x - 0.5, at_y - 0.5
    column, row = at_x.floor(), at_y.floor()
    share_x, share_y = (at_x - column)[..., None], (at_y - row)[..., None]
    columns = [(column.long() + i).clamp(0, w - 1) for i in (-1, 0, 1, 2)]
    lines = []
    for j in (-1, 0, 1, 2):
        line = (row.long() + j).clamp(0, h - 1)
        lines.append(_cubic([frames[:, line, col].double() for col in columns], share_x))
    exact = _cubic(lines, share_y).clamp(0, 255).trunc()
    return torch.where(inside[..., None], exact, float(FILL)).to(torch.uint8)


def _cubic(values: Sequence[Tensor], share: Tensor) -> Tensor:
    """The cubic through four neighbours, `share` of the way from the second to the third."""
    before, here, there, behind = values
    p = there - before
    q = 2 * (before - here) + there - behind
    r = -before + here - there + behind
    return here + share * (p + share * (q + share * r))


_PLAIN: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "invert": _invert,
}
_WITH_ARGUMENT: Final[dict[str, Callable[[Tensor, float], Tensor]]] = {
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": _color,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
}

_RAND_AUGMENT = declare("rand_augment", _reference, native=native(_by_library))
