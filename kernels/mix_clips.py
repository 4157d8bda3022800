"""Mixup and cutmix: clips of a batch blended with, or cut into, one another.

Clip i is mixed with clip B - 1 - i and the other way round, so a program makes the same values of
both: each is read once and written once. The draws are tensors, and nothing waits for the host.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from videomae_fast.arguments import Arguments
from videomae_fast.kernels.host import cdiv


@dataclass(frozen=True)
class Launch:
    """Launch choices; modelled, not yet measured on a GPU.

    Attributes:
        values: of each of the two clips that a program makes: 16 a thread, in loads of 16 bytes.
        num_warps: of a program.
    """

    values: int = 2048
    num_warps: int = 4


LAUNCH = Launch()


@triton.jit
def _mixed(b_own, b_other, own_ptr, boxes_ptr, i_clip, o_row, o_column):
    """A clip's values, fp32, mixed with those of its partner."""
    p_box = boxes_ptr + i_clip * 4
    top, bottom = tl.load(p_box), tl.load(p_box + 1)
    left, right = tl.load(p_box + 2), tl.load(p_box + 3)
    # A clip with a box keeps its own pixels outside of it
    boxed = (bottom > top) & (right > left)
    share = tl.where(boxed, 1.0, tl.load(own_ptr + i_clip))
    b_blend = b_own * share.to(tl.float32) + b_other * (1.0 - share).to(tl.float32)
    m_box = (o_row >= top) & (o_row < bottom) & (o_column >= left) & (o_column < right)
    return tl.where(m_box, b_other, b_blend)


@triton.jit
def mix_kernel(
    clips_ptr,  # [B, T, height, width, 3]
    own_ptr,  # [B] fp64: share of a clip's own pixels
    boxes_ptr,  # [B, 4] int64: top, bottom, left, right
    out_ptr,  # as the clips
    batch,  # B
    values,  # T * height * width * 3
    height,
    width,
    VALUES: tl.constexpr,
):
    i_clip = tl.program_id(0)
    i_other = batch - 1 - i_clip
    o_value = tl.program_id(1) * VALUES + tl.arange(0, VALUES)  # [VALUES]
    m_value = o_value < values
    o_pixel = o_value // 3
    o_row, o_column = o_pixel // width % height, o_pixel % width
    o_own = i_clip.to(tl.int64) * values + o_value
    o_other = i_other.to(tl.int64) * values + o_value
    b_own = tl.load(clips_ptr + o_own, mask=m_value, other=0).to(tl.float32)
    b_other = tl.load(clips_ptr + o_other, mask=m_value, other=0).to(tl.float32)
    b_first = _mixed(b_own, b_other, own_ptr, boxes_ptr, i_clip, o_row, o_column)
    b_second = _mixed(b_other, b_own, own_ptr, boxes_ptr, i_other, o_row, o_column)
    tl.store(out_ptr + o_own, b_first.to(out_ptr.dtype.element_ty), mask=m_value)
    tl.store(out_ptr + o_other, b_second.to(out_ptr.dtype.element_ty), mask=m_value)


def mix_clips(args: Arguments) -> Tensor:
    """The mixed clips, [B, T, H, W, 3], contiguous; shares fp64 [B], boxes int64 [B, 4]."""
    clips = args.clips.contiguous()
    out = torch.empty_like(clips)
    if out.numel() == 0:
        return out
    batch, frames, height, width, _ = clips.shape
    values = frames * height * width * 3
    with torch.cuda.device_of(clips):
        mix_kernel[cdiv(batch, 2), cdiv(values, LAUNCH.values)](
            clips,
            args.own.contiguous(),
            args.boxes.contiguous(),
            out,
            batch,
            values,
            height,
            width,
            VALUES=LAUNCH.values,
            num_warps=LAUNCH.num_warps,
            enable_fp_fusion=False,  # the two products are rounded, as the reference has them
        )
    return out
