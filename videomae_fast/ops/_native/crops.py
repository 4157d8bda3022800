"""The native op that makes the views of a clip: crop, antialiased resize, flip."""

from __future__ import annotations

from torch import Tensor

from videomae_fast.ops._native.calls import call


def crop_resize(views: Tensor, tables: Tensor, out: Tensor) -> None:
    """The views of a plan; the clips that it points to must still be there.

    Args:
        views, tables: of :class:`videomae_fast.ops.crop_plan.CropPlan`.
        out: uint8 [V, T, height, width, 3], contiguous, written; the same for any thread count. T
            is that of every clip.

    Raises:
        ValueError: tables that leave a box.
    """
    _, frames, height, width, _ = out.shape
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
