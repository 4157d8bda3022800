"""The native op that makes the views of a clip: crop, antialiased resize, flip."""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.ops._native.calls import call, expect


def crop_resize(views: Tensor, tables: Tensor, out: Tensor) -> None:
    """The views of a plan; the clips that it points to must still be there.

    Args:
        views, tables: of :class:`videomae_fast.ops.crop_plan.CropPlan`.
        out: uint8 [V, T, height, width, 3], written; the same for any thread count. T is that of
            every clip.

    Raises:
        ValueError: wrong shape or dtype, or tables that leave a box.
    """
    views = expect(views, "views", torch.int64, (len(views), 11))
    tables = expect(tables, "tables", torch.int32, (tables.numel(),))
    _, frames, height, width, _ = out.shape
    expect(out, "out", torch.uint8, (len(views), frames, height, width, 3))
    if not out.is_contiguous():
        raise ValueError("out must be contiguous")
    call(
        "vmf_crop_resize",
        "pppiiiii",
        views,
        tables,
        out,
        len(views),
        tables.numel(),
        frames,
        height,
        width,
    )
