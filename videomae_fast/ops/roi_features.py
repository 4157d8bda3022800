"""RoI features: tokens and boxes in, a feature vector per box out.

The mean over time, RoIAlign, and the maximum over the bins of each box: what an action detector
has between encoder and head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from videomae_fast.ops.roi_align import RoiSpec, box_bins, box_weights, check_rois

Grid = tuple[int, int, int]
"""Slots, height, width of tokens."""


def roi_features(
    tokens: Tensor, boxes: Tensor, clip: Tensor, *, grid: Grid, spec: RoiSpec
) -> Tensor:
    """Features of boxes. Gradients flow to the tokens only.

    Args:
        tokens: float [B, slots * height * width, D].
        boxes: float [N, 4]: x1, y1, x2, y2.
        clip: int64 [N], the clip of each box.
        grid: (slots, height, width) of the tokens.
        spec: how boxes are sampled.

    Returns:
        [N, D] in the dtype of the tokens; computed in fp32 at least.

    Raises:
        ValueError: wrong shapes or dtypes, and as :func:`~videomae_fast.ops.roi_align.roi_align`.

    Source: the RoI head of the official AVA code.
    """
    slots, height, width = grid
    if min(grid) < 1 or tokens.ndim != 3 or tokens.shape[1] != slots * height * width:
        raise ValueError(f"tokens must be [B, {slots}·{height}·{width}, D], got {tokens.shape}")
    if not tokens.is_floating_point():
        raise ValueError(f"tokens must be floating point, got {tokens.dtype}")
    check_rois(boxes, clip, tokens.shape[0], spec)
    out: Tensor = _RoiFeatures.apply(tokens, boxes, clip, grid, spec)  # type: ignore[no-untyped-call]
    return out


class _RoiFeatures(Function):
    """Keeps boxes and the place of each maximum for backward, not the bins."""

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, boxes: Tensor, clip: Tensor, grid: Grid, spec: RoiSpec
    ) -> Tensor:
        features, best = _forward_reference(tokens, boxes, clip, grid, spec)
        ctx.save_for_backward(boxes, clip, best)
        ctx.batch, ctx.grid, ctx.spec = tokens.shape[0], grid, spec
        return features

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        boxes, clip, best = ctx.saved_tensors
        out = _backward_reference(grad, boxes, clip, best, ctx.batch, ctx.grid, ctx.spec)
        return out, None, None, None, None


def _forward_reference(
    tokens: Tensor, boxes: Tensor, clip: Tensor, grid: Grid, spec: RoiSpec
) -> tuple[Tensor, Tensor]:
    """Features [N, D], and the bin of each value, int64 [N, D]: the first one of several equal."""
    compute = torch.promote_types(tokens.dtype, torch.float32)
    maps = tokens.reshape(-1, *grid, tokens.shape[2]).mean(1, dtype=compute)
    features, best = box_bins(maps, boxes, clip, spec).flatten(1, 2).max(1)
    return features.to(tokens.dtype), best


def _backward_reference(
    grad: Tensor,
    boxes: Tensor,
    clip: Tensor,
    best: Tensor,
    batch: int,
    grid: Grid,
    spec: RoiSpec,
) -> Tensor:
    """The gradient of the tokens, [batch, slots * height * width, D]."""
    slots, height, width = grid
    compute = torch.promote_types(grad.dtype, torch.float32)
    down, across = box_weights(boxes, height, width, spec, compute)
    bins = grad.new_zeros((len(boxes), spec.size**2, grad.shape[1]), dtype=compute)
    bins.scatter_(1, best[:, None], grad[:, None].to(compute))
    with torch.autocast(grad.device.type, enabled=False):
        rows = torch.einsum(
            "nqw,npqc->npwc", across, bins.view(-1, spec.size, spec.size, bins.shape[2])
        )
        cells = torch.einsum("nph,npwc->nhwc", down, rows)
    maps = cells.new_zeros((batch, *cells.shape[1:])).index_add_(0, clip, cells)
    every = (maps / slots)[:, None].expand(-1, slots, -1, -1, -1)
    return every.reshape(batch, slots * height * width, grad.shape[1]).to(grad.dtype)
