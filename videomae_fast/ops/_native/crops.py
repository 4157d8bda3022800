"""The native op that makes the views of a clip: crop, antialiased resize, flip."""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.ops._native.calls import call, expect


def crop_resize(views: Tensor, tables: Tensor, frames: int, height: int, width: int) -> Tensor:
    """The views of a plan; the clips that it points to must still be there.

    Args:
        views, tables: of :class:`videomae_fast.ops.crop_plan.CropPlan`.
        frames: T, of every clip.
        height, width: of the result, in pixels.

    Returns:
        uint8 [V, T, height, width, 3], the same for any thread count.

    Raises:
        ValueError: wrong shape or dtype, or tables that leave a box.
    """
    views = expect(views, "views", torch.int64, (len(views), 11))
    tables = expect(tables, "tables", torch.int32, (tables.numel(),))
    out = torch.empty((len(views), frames, height, width, 3), dtype=torch.uint8)
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
    return out
