"""The native ops on boxes: features of regions of interest."""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.ops._native.calls import call, contiguous


def roi_features(
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
    """The mean over slots, RoIAlign and the maximum over bins; the same for any thread count.

    Args:
        tokens: fp32 [B, slots * height * width, D].
        boxes: fp32 [N, 4].
        clip: int64 [N].

    Returns:
        Features, fp32 [N, D]; the bin of each, int32 [N, D]; what rows, fp32 [N, size, height], and
        columns, fp32 [N, size, width], count in the bins.

    Raises:
        ValueError: a clip outside 0..B-1.
    """
    tokens, boxes, clip = contiguous(tokens, boxes, clip)
    batch, dim, count = tokens.shape[0], tokens.shape[2], len(boxes)
    features = tokens.new_empty((count, dim))
    best = tokens.new_empty((count, dim), dtype=torch.int32)
    down = tokens.new_empty((count, size, height))
    across = tokens.new_empty((count, size, width))
    call(
        "vmf_roi_features", "pppppppiiiiiiifii",
        tokens, boxes, clip, features, best, down, across,
        batch, slots, height, width, dim, count, size, scale, sampling_ratio, int(aligned),
    )  # fmt: skip
    return features, best, down, across


def roi_features_backward(
    grad: Tensor,
    clip: Tensor,
    best: Tensor,
    down: Tensor,
    across: Tensor,
    batch: int,
    slots: int,
) -> Tensor:
    """The gradient of the tokens, fp32 [batch, slots * height * width, D].

    Boxes of a clip are added in their order; the same bits for any thread count.

    Raises:
        ValueError: a clip outside 0..batch-1, or a bin that there is not.
    """
    grad, clip, best, down, across = contiguous(grad, clip, best, down, across)
    (count, size, height), width, dim = down.shape, across.shape[2], grad.shape[1]
    out = grad.new_empty((batch, slots * height * width, dim))
    sizes = (batch, slots, height, width, dim, count, size)
    call("vmf_roi_features_backward", "ppppppiiiiiii", grad, clip, best, down, across, out, *sizes)
    return out
