"""Patch gather: uint8 frames and token positions in, normalised patches in the weight's order out.

One program writes one token (part of it, if its cube is large). Lanes run over the pixels of a
cube, colours are taken one after the other: so each colour's values leave in one contiguous run,
and the bytes of a row, 3 apart from lane to lane, come from the same few cache lines three times,
of which only the first time costs memory traffic.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from videomae_fast.arguments import Arguments
from videomae_fast.kernels.cubes import cube_pointer, dense_pixels
from videomae_fast.kernels.host import cdiv, power_of_2


@dataclass(frozen=True)
class Launch:
    """Launch choices; modelled, not yet measured on a GPU.

    Attributes:
        pixels: most pixels of a program. A 2×16×16 cube has 512: one program per token, 4 pixels a
            lane, so that a lane's run of 4 bf16 values is one 8-byte store.
        num_warps: 4, many small programs in flight hide the latency of the scattered rows.
    """

    pixels: int = 1024
    num_warps: int = 4
    num_stages: int = 1


LAUNCH = Launch()


@triton.jit
def patch_gather_kernel(
    frames_ptr,  # [B, T, H, W, 3] uint8; strides of clip, frame and row given, pixels dense
    index_ptr,  # [B, K] int32
    out_ptr,  # [B, K, 3, TUBELET, PATCH, PATCH]
    per_clip,  # K
    rows,  # H / PATCH
    columns,  # W / PATCH
    clip_stride,
    frame_stride,
    row_stride,
    scale_0,  # 1 / (255 std_c) of each colour c
    scale_1,
    scale_2,
    shift_0,  # mean_c / std_c
    shift_1,
    shift_2,
    TUBELET: tl.constexpr,
    PATCH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    PIXELS: tl.constexpr = TUBELET * PATCH * PATCH
    i_token = tl.program_id(0)
    position = tl.load(index_ptr + i_token)
    p_cube = cube_pointer(
        frames_ptr,
        i_token // per_clip,
        position,
        rows,
        columns,
        clip_stride,
        frame_stride,
        row_stride,
        TUBELET,
        PATCH,
    )
    o_pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    m_pixel = o_pixel < PIXELS
    o_frame = o_pixel // (PATCH * PATCH)
    o_row = o_pixel // PATCH % PATCH
    p_pixel = p_cube + o_frame * frame_stride + o_row * row_stride + o_pixel % PATCH * 3
    # All loads before the first store: a store might alias them, as far as the compiler knows.
    b_0 = tl.load(p_pixel, mask=m_pixel, other=0)  # [BLOCK]
    b_1 = tl.load(p_pixel + 1, mask=m_pixel, other=0)
    b_2 = tl.load(p_pixel + 2, mask=m_pixel, other=0)
    p_out = out_ptr + i_token.to(tl.int64) * (3 * PIXELS) + o_pixel
    dtype = out_ptr.dtype.element_ty
    tl.store(p_out, (b_0.to(tl.float32) * scale_0 - shift_0).to(dtype), mask=m_pixel)
    tl.store(p_out + PIXELS, (b_1.to(tl.float32) * scale_1 - shift_1).to(dtype), mask=m_pixel)
    tl.store(p_out + 2 * PIXELS, (b_2.to(tl.float32) * scale_2 - shift_2).to(dtype), mask=m_pixel)


def patch_gather(args: Arguments) -> Tensor:
    """Normalised patches [B, K, 3 * tubelet_size * patch_size**2] of the tokens at `index`.

    Crops and time slices of larger frames are read in place; frames whose pixels are not dense
    within a row, and an index that is not contiguous, are copied first.
    """
    tubelet_size, patch_size = args.tubelet_size, args.patch_size
    b, k = args.index.shape
    _, _, h, w, _ = args.frames.shape
    pixels = tubelet_size * patch_size**2
    out = torch.empty((b, k, 3 * pixels), dtype=args.dtype, device=args.frames.device)
    if out.numel() == 0:
        return out
    frames = dense_pixels(args.frames)
    block = min(power_of_2(pixels), LAUNCH.pixels)
    with torch.cuda.device_of(frames):
        patch_gather_kernel[(b * k, cdiv(pixels, block))](
            frames,
            args.index.contiguous(),
            out,
            k,
            h // patch_size,
            w // patch_size,
            *frames.stride()[:3],
            *(1.0 / (255.0 * s) for s in args.std),
            *(m / s for m, s in zip(args.mean, args.std, strict=True)),
            TUBELET=tubelet_size,
            PATCH=patch_size,
            BLOCK=block,
            num_warps=LAUNCH.num_warps,
            num_stages=LAUNCH.num_stages,
        )
    return out
