"""RoIAlign: the mean of bilinear samples in each bin of a grid over each box.

A sample's bilinear weights are a product of one for its row and one for its column, and so are
sums over a grid of samples: a box's bins are ``rows @ features @ columns.T``.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor


class RoiSpec(NamedTuple):
    """How boxes are sampled.

    Attributes:
        size: bins along each side of a box.
        scale: of box coordinates to cells of the feature map: 1 / patch size for pixels.
        sampling_ratio: samples along each side of a bin; 0 takes one per begun cell, by box.
        aligned: shifts boxes by half a cell, so that a cell's value lies at its centre; otherwise
            boxes are at least one cell wide and high.
    """

    size: int = 7
    scale: float = 1.0
    sampling_ratio: int = 0
    aligned: bool = False


def roi_align(features: Tensor, boxes: Tensor, clip: Tensor, spec: RoiSpec) -> Tensor:
    """The bins of boxes over feature maps. Gradients flow to the features only.

    Args:
        features: float [B, C, H, W].
        boxes: float [N, 4]: x1, y1, x2, y2; taken in fp32, of fp64 features in fp64. Samples more
            than one cell outside of the map are 0.
        clip: int64 [N], the feature map of each box.
        spec: how they are sampled.

    Returns:
        [N, C, size, size] in the dtype of the features; computed in fp32 at least.

    Raises:
        ValueError: wrong shapes or dtypes or a spec that can't be; on the CPU also boxes that are
            not finite, end before they begin, or belong to no map.

    Source: torchvision's ``roi_align`` (ops/cpu/roi_align_common.h), which the official AVA code
    calls; its results, another computation.
    """
    if features.ndim != 4 or not features.is_floating_point():
        raise ValueError(
            f"features must be floating point [B, C, H, W], got {features.dtype} "
            f"{list(features.shape)}"
        )
    check_rois(boxes, clip, features.shape[0], spec)
    compute = torch.promote_types(features.dtype, torch.float32)
    down, across = box_weights(boxes.to(compute), features.shape[2], features.shape[3], spec)
    bins = box_bins(features.permute(0, 2, 3, 1), clip, down, across)
    return bins.permute(0, 3, 1, 2).to(features.dtype)


def box_bins(maps: Tensor, clip: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Channels-last maps [B, H, W, C] to bins [N, size, size, C] in the dtype of the weights.

    Of a box whose clip there is not: NaN.
    """
    known = (clip >= 0) & (clip < len(maps))
    with in_its_own_dtype(maps.device):
        own = maps.to(down.dtype)[torch.where(known, clip, 0)]
        bins = torch.einsum("nqw,npwc->npqc", across, torch.einsum("nph,nhwc->npwc", down, own))
    return torch.where(known[:, None, None, None], bins, torch.nan)


def in_its_own_dtype(device: torch.device) -> AbstractContextManager[object]:
    """No autocast, whose matmuls would be in half precision; on "meta" there is none."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def box_weights(boxes: Tensor, height: int, width: int, spec: RoiSpec) -> tuple[Tensor, Tensor]:
    """What rows [N, size, height] and columns [N, size, width] count in the bins of boxes.

    Of a box that is not finite, or ends before it begins: NaN.

    Args:
        boxes: fp32 or fp64 [N, 4]; computed in that dtype.
        height, width: of the feature map.
        spec: how they are sampled.
    """
    left, top, right, bottom = boxes.unbind(1)
    good = (boxes.isfinite().all(1) & (right >= left) & (bottom >= top))[:, None, None]
    down, across = axis_weights(top, bottom, height, spec), axis_weights(left, right, width, spec)
    return torch.where(good, down, torch.nan), torch.where(good, across, torch.nan)


def axis_weights(low: Tensor, high: Tensor, length: int, spec: RoiSpec) -> Tensor:
    """What each of `length` cells counts in each bin along one axis, [N, size, length].

    Args:
        low, high: fp32 or fp64 [N], where the boxes begin and end; computed in that dtype, every
            operation rounded, since a bin's size is rounded up to its number of samples.
        length: of the feature map.
        spec: how they are sampled.
    """
    compute = low.dtype
    offset = 0.5 if spec.aligned else 0.0
    begin = low * spec.scale - offset
    extent = high * spec.scale - offset - begin
    if not spec.aligned:
        extent = extent.clamp(min=1.0)
    # By a tensor: on a GPU torch multiplies by a number's reciprocal.
    bin_size = (extent / torch.full_like(extent, spec.size))[:, None]  # [N, 1]
    bins = torch.arange(spec.size, dtype=compute, device=low.device)
    start = begin[:, None] + bins * bin_size  # [N, size]
    if spec.sampling_ratio > 0:
        count = torch.full_like(bin_size, spec.sampling_ratio)
        first, reach = torch.zeros_like(start), spec.sampling_ratio
    else:
        # Samples lie more than half a cell apart, so that few of even a huge box lie within the
        # map: only they are made, and the number of samples made does not depend on values.
        count = bin_size.ceil().clamp(min=0)
        reach = 2 * length + 6
        step = (bin_size / count.clamp(min=1)).clamp(min=0.5)
        first = ((-1 - start) / step - 1).floor().clamp(min=0)
        first = torch.where(count > 1, first, torch.zeros_like(first))
    sample = first[..., None] + torch.arange(reach, dtype=compute, device=low.device)
    count = count[..., None]
    place = start[..., None] + (sample + 0.5) * bin_size[..., None] / count.clamp(min=1)
    counts = (sample < count) & (place >= -1) & (place <= length)
    cells = torch.arange(length, dtype=compute, device=low.device)
    near = 1 - (place.clamp(0, length - 1)[..., None] - cells).abs()
    weights = near.clamp(min=0) * counts[..., None]
    return weights.sum(2) / count.clamp(min=1)


def check_rois(boxes: Tensor, clip: Tensor, batch: int, spec: RoiSpec) -> None:
    """Checks boxes and the clips that they belong to; values on the CPU only: no device sync.

    Raises:
        ValueError: as :func:`roi_align` has it.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not boxes.is_floating_point():
        raise ValueError(
            f"boxes must be floating point [N, 4], got {boxes.dtype} {list(boxes.shape)}"
        )
    if clip.shape != boxes.shape[:1] or clip.dtype != torch.int64:
        raise ValueError(
            f"clip must be int64 [N={len(boxes)}], got {clip.dtype} {list(clip.shape)}"
        )
    if spec.size < 1 or not spec.scale > 0 or spec.sampling_ratio < 0:
        raise ValueError(
            f"{spec}: size must be at least 1, scale above 0, sampling_ratio at least 0"
        )
    if boxes.device.type != "cpu" or torch.compiler.is_compiling():
        return
    good = boxes.isfinite().all(1) & (boxes[:, 2:] >= boxes[:, :2]).all(1)
    if not good.all():
        worst = int(good.int().argmin())
        raise ValueError(
            f"box {worst} is {boxes[worst].tolist()}: boxes are x1, y1, x2, y2, finite, and end "
            "no sooner than they begin"
        )
    if len(clip) and not 0 <= int(clip.min()) <= int(clip.max()) < batch:
        worst = int(((clip < 0) | (clip >= batch)).int().argmax())
        raise ValueError(f"box {worst} is of clip {int(clip[worst])}: clips are 0 to {batch - 1}")
