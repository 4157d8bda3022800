"""RoI features: tokens and boxes in, a feature vector per box out.

The mean over time, RoIAlign, and the maximum over the bins of each box: what an action detector
has between encoder and head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.ops.roi_align import RoiSpec, box_bins, check_rois


def roi_features(
    tokens: Tensor, boxes: Tensor, clip: Tensor, *, grid: tuple[int, int, int], spec: RoiSpec
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
    compute = torch.promote_types(tokens.dtype, torch.float32)
    maps = tokens.reshape(-1, *grid, tokens.shape[2]).mean(1, dtype=compute)
    # One bin gets the gradient where several are equal, as a pooling layer's.
    return box_bins(maps, boxes, clip, spec).flatten(1, 2).max(1).values.to(tokens.dtype)
