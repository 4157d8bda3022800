"""Mixup and cutmix of the clips of a batch: clip i with clip B - 1 - i.

Source: Mixup in timm/data/mixup.py (0.4.12), which the official V2 code calls.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from videomae_fast.ops._declare import declare, native, triton
from videomae_fast.ops._native import augment


def mix_clips(clips: Tensor, own: Tensor, boxes: Tensor, *, impl: str = "auto") -> Tensor:
    """Each clip blended with its partner, or with a box of it, the same in all frames.

    Args:
        clips: floating point [B, T, H, W, 3], normalised.
        own: fp64 [B], in 0..1: the share of a clip's own pixels, where its box is empty.
        boxes: int64 [B, 4], rows and columns (top, bottom, left, right) that are the partner's, the
            second and fourth not included; an empty one for a clip that is blended.
        impl: "auto", "triton" (CUDA), "native" (CPU, fp32) or "reference": the same values in fp32,
            but where a partner that is left out is not finite.

    Returns:
        Of the clips' shape and dtype, contiguous. There is no gradient.

    Raises:
        ValueError: wrong shapes or dtypes.
        BackendUnavailableError: `impl` can't run here.
    """
    if clips.ndim != 5 or clips.shape[-1] != 3 or not clips.is_floating_point():
        raise ValueError(
            f"clips must be floating point [B, T, H, W, 3], got {clips.dtype} {list(clips.shape)}"
        )
    batch = len(clips)
    if own.shape != (batch,) or own.dtype != torch.float64:
        raise ValueError(f"own must be fp64 [{batch}], got {own.dtype} {list(own.shape)}")
    if boxes.shape != (batch, 4) or boxes.dtype != torch.int64:
        raise ValueError(f"boxes must be int64 [{batch}, 4], got {boxes.dtype} {list(boxes.shape)}")
    mixed: Tensor = _MIX_CLIPS(impl, clips, own, boxes)
    return mixed


def _reference(clips: Tensor, own: Tensor, boxes: Tensor) -> Tensor:
    top, bottom, left, right = (edge[:, None] for edge in boxes.unbind(1))
    rows = torch.arange(clips.shape[2], device=clips.device)
    columns = torch.arange(clips.shape[3], device=clips.device)
    inside_rows = (rows >= top) & (rows < bottom)
    inside_columns = (columns >= left) & (columns < right)
    inside = rearrange(inside_rows, "b h -> b 1 h 1 1") & rearrange(
        inside_columns, "b w -> b 1 1 w 1"
    )
    # A clip with a box keeps its own pixels outside; an empty box leaves all of them
    boxed = (bottom > top).squeeze(1) & (right > left).squeeze(1)
    blend = rearrange(torch.where(boxed, 1.0, own), "b -> b 1 1 1 1")
    partner = clips.flip(0)
    mixed = clips * blend.to(clips.dtype) + partner * (1.0 - blend).to(clips.dtype)
    return torch.where(inside, partner, mixed)


def _unfit(clips: Tensor) -> str | None:
    if clips.dtype == torch.float64:  # the draws are
        return "the kernel takes clips of fp32, bf16 and fp16, not fp64"
    if clips[:1].numel() >= 2**31:
        return "the kernel takes clips of less than 2**31 values"
    return None


def _native_unfit(clips: Tensor) -> str | None:
    if clips.dtype != torch.float32:
        return f"the native library takes clips of fp32, not {clips.dtype}"
    return None


_MIX_CLIPS = declare(
    "mix_clips",
    _reference,
    native=native(augment.mix_clips, unfit=_native_unfit),
    triton=triton(
        "mix_clips",
        "mix_clips",
        dtypes=(torch.float64, torch.float32, torch.bfloat16, torch.float16),
        unfit=_unfit,
    ),
)
