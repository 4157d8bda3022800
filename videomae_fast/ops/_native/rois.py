"""The native ops on boxes: features of regions of interest. A clip out of range is a ValueError."""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.arguments import Arguments, contiguous
from videomae_fast.ops._native.calls import call


def roi_features(args: Arguments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    tokens, boxes, clip = contiguous(args.tokens, args.boxes, args.clip)
    (batch, _, dim), count = tokens.shape, len(boxes)
    features = tokens.new_empty((count, dim))
    best = tokens.new_empty((count, dim), dtype=torch.int32)
    down = tokens.new_empty((count, args.size, args.height))
    across = tokens.new_empty((count, args.size, args.width))
    call(
        "vmf_roi_features", "pppppppiiiiiiifii",
        tokens, boxes, clip, features, best, down, across,
        batch, args.slots, args.height, args.width, dim, count, args.size,
        args.scale, args.sampling_ratio, int(args.aligned),
    )  # fmt: skip
    return features, best, down, across


def roi_features_backward(args: Arguments) -> Tensor:
    """Boxes of a clip are added in their order."""
    tensors = contiguous(args.grad, args.clip, args.best, args.down, args.across)
    grad, _, _, down, across = tensors
    (count, size, height), width, dim = down.shape, across.shape[2], grad.shape[1]
    out = torch.empty((args.batch, args.slots * height * width, dim), dtype=grad.dtype)
    sizes = (args.batch, args.slots, height, width, dim, count, size)
    call("vmf_roi_features_backward", "ppppppiiiiiii", *tensors, out, *sizes)
    return out
