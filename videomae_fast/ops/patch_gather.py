"""Patch gather: uint8 frames and token positions in, normalised patches in the weight's order out.

The official code normalises and embeds every token and then throws 90 % away; here only the cubes
at `index` are ever read.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from videomae_fast.ops._declare import declare, native, triton
from videomae_fast.ops._native import pixels
from videomae_fast.ops.checks import check_frames, check_index
from videomae_fast.ops.cubes import gather_cubes
from videomae_fast.ops.registry import UP_TO_FP32

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Of ImageNet's pictures, per colour channel, of values in 0..1."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviations of ImageNet's pictures, likewise."""


def patch_gather(
    frames: Tensor,
    index: Tensor,
    *,
    tubelet_size: int = 2,
    patch_size: int = 16,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    dtype: torch.dtype = torch.float32,
    impl: str = "auto",
) -> Tensor:
    """Normalised patches of the tokens at `index`, ready for the patch embedding's matmul.

    Each value is ``(uint8 / 255 - mean_c) / std_c``, computed in fp32 and rounded to `dtype` once.

    Args:
        frames: uint8 [B, T, H, W, 3].
        index: int32 [B, K], token positions; each within the grid (not checked on a GPU).
        tubelet_size: length of a token's cube, in frames.
        patch_size: side of a token's cube, in pixels.
        mean: per colour channel, of values in 0..1; ImageNet's by default.
        std: likewise.
        dtype: of the result.
        impl: "auto", "triton" (CUDA), "native" (CPU) or "reference".

    Returns:
        [B, K, 3 * tubelet_size * patch_size**2] in the order (c, p0, p1, p2) of the Conv3d weight.
        No gradient flows to the frames.

    Raises:
        ValueError: wrong shapes or dtypes, or a size that does not divide.
        BackendUnavailableError: `impl` can't run here.

    Source: PatchEmbed in models/modeling_finetune.py and the normalisation in
    dataset/pretrain_datasets.py of the official V2 code.
    """
    check_frames(frames, tubelet_size, patch_size)
    check_index(index, frames.shape[0])
    out: Tensor = _PATCH_GATHER(
        impl, frames, index, tubelet_size, patch_size, list(mean), list(std), dtype
    )
    return out


def _reference(
    frames: Tensor,
    index: Tensor,
    tubelet_size: int,
    patch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
) -> Tensor:
    cubes = gather_cubes(frames, index, tubelet_size, patch_size)
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    offset = torch.tensor(list(mean), dtype=compute, device=frames.device)
    scale = torch.tensor(list(std), dtype=compute, device=frames.device)
    values = (cubes.to(compute) / 255 - offset) / scale
    return rearrange(values, "b k p0 p1 p2 c -> b k (c p0 p1 p2)").to(dtype)


def _triton_unfit(mean: Sequence[float], std: Sequence[float]) -> str | None:
    if len(mean) != 3 or len(std) != 3:
        return f"the kernel takes 3 means and 3 deviations, not {len(mean)} and {len(std)}"
    return None


_PATCH_GATHER = declare(
    "patch_gather",
    _reference,
    triton=triton("patch_gather", "patch_gather", unfit=_triton_unfit),
    native=native(pixels.patch_gather, dtypes=UP_TO_FP32),
)
