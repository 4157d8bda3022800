"""RoI features: tokens and boxes in, a feature vector per box out.

The mean over time, RoIAlign, and the maximum over the bins of each box: what an action detector
has between encoder and head.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from videomae_fast.ops._declare import Gradient, declare, native, triton
from videomae_fast.ops._native import rois
from videomae_fast.ops.registry import FP32
from videomae_fast.ops.roi_align import RoiSpec, box_bins, box_weights, check_rois, in_its_own_dtype

Grid = tuple[int, int, int]
"""Slots, height, width of tokens."""
_MAX_BINS: Final = 16  # a side: what Triton's kernel holds of a box in registers


def roi_features(
    tokens: Tensor, boxes: Tensor, clip: Tensor, *, grid: Grid, spec: RoiSpec, impl: str = "auto"
) -> Tensor:
    """Features of boxes. Gradients flow to the tokens only.

    Args:
        tokens: float [B, slots * height * width, D].
        boxes: float [N, 4]: x1, y1, x2, y2; taken in fp32, of fp64 tokens in fp64.
        clip: int64 [N], the clip of each box.
        grid: (slots, height, width) of the tokens.
        spec: how boxes are sampled.
        impl: "auto", "triton" (CUDA), "native" (CPU, fp32) or "reference".

    Returns:
        [N, D] in the dtype of the tokens; computed in fp32 at least. Where values are not checked
        (on a GPU, and within torch.compile), a box that is not finite, ends before it begins or
        belongs to no clip has NaN, or is an error of the backend.

    Raises:
        ValueError: wrong shapes or dtypes, and as :func:`~videomae_fast.ops.roi_align.roi_align`.
        BackendUnavailableError: `impl` can't run here.

    Source: the RoI head of the official AVA code.
    """
    slots, height, width = grid
    if min(grid) < 1 or tokens.ndim != 3 or tokens.shape[1] != slots * height * width:
        raise ValueError(f"tokens must be [B, {slots}·{height}·{width}, D], got {tokens.shape}")
    if not tokens.is_floating_point():
        raise ValueError(f"tokens must be floating point, got {tokens.dtype}")
    check_rois(boxes, clip, tokens.shape[0], spec)
    compute = torch.promote_types(tokens.dtype, torch.float32)
    out: Tensor = _ROI_FEATURES(impl, tokens, boxes.detach().to(compute), clip, *grid, *spec)[0]
    return out


def _forward_reference(
    tokens: Tensor,
    boxes: Tensor,
    clip: Tensor,
    slots: int,
    height: int,
    width: int,
    size: int,
    scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features [N, D]; the bin of each value, int32 [N, D], the first one of several equal; and
    what rows [N, size, height] and columns [N, size, width] count in the bins."""
    compute = torch.promote_types(tokens.dtype, torch.float32)
    spec = RoiSpec(size, scale, sampling_ratio, aligned)
    grid = (len(tokens), slots, height, width, tokens.shape[2])
    maps = tokens.reshape(grid).mean(1, dtype=compute)
    down, across = box_weights(boxes, height, width, spec)
    features, best = box_bins(maps, clip, down, across).flatten(1, 2).max(1)
    return features.to(tokens.dtype), best.int(), down, across


def _backward_reference(
    grad: Tensor, clip: Tensor, best: Tensor, down: Tensor, across: Tensor, batch: int, slots: int
) -> Tensor:
    """The gradient of the tokens, [batch, slots * height * width, D]."""
    size, height, width = down.shape[1], down.shape[2], across.shape[2]
    bins = grad.new_zeros((len(grad), size**2, grad.shape[1]), dtype=down.dtype)
    bins.scatter_(1, best[:, None].long(), grad[:, None].to(down.dtype))
    grid = bins.view(len(bins), size, size, bins.shape[2])
    with in_its_own_dtype(grad.device):
        rows = torch.einsum("nqw,npqc->npwc", across, grid)
        cells = torch.einsum("nph,npwc->nhwc", down, rows)
    known = (clip >= 0) & (clip < batch)
    cells = torch.where(known[:, None, None, None], cells, 0)
    maps = cells.new_zeros((batch, *cells.shape[1:]))
    maps.index_add_(0, torch.where(known, clip, 0), cells)
    every = (maps / slots)[:, None].expand(-1, slots, -1, -1, -1)
    return every.reshape(batch, slots * height * width, grad.shape[1]).to(grad.dtype)


def _kept(
    tokens: Tensor, clip: Tensor, best: Tensor, down: Tensor, across: Tensor, slots: int
) -> tuple[Any, ...]:
    """The place of each maximum and the weights, not the bins."""
    return clip, best, down, across, tokens.shape[0], slots


def _unfit(size: int) -> str | None:
    return None if size <= _MAX_BINS else f"Triton takes up to {_MAX_BINS} bins a side, not {size}"


_ROI_FEATURES = declare(
    "roi_features",
    _forward_reference,
    triton=triton("roi_features", "forward", unfit=_unfit),
    native=native(rois.roi_features, dtypes=FP32),
    gradient=Gradient(
        _backward_reference,
        of=("tokens",),
        backends={
            "triton": triton("roi_features", "backward"),
            "native": native(rois.roi_features_backward, dtypes=FP32),
        },
        results=("features", "best", "down", "across"),
        keep=_kept,
    ),
)
