"""Decoder sequence assembly: projected visible tokens, then mask tokens, each with its position."""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.ops._declare import Gradient, declare, native, triton
from videomae_fast.ops._native import in_fp32, tokens
from videomae_fast.ops.checks import check_index
from videomae_fast.ops.registry import FP32_BF16


def decoder_assembly(
    visible: Tensor,
    mask_token: Tensor,
    positions: Tensor,
    visible_index: Tensor,
    decoder_index: Tensor,
    *,
    impl: str = "auto",
) -> Tensor:
    """The decoder's input sequence in one pass.

    ``out[b, :V] = visible[b] + positions[visible_index[b]]`` and
    ``out[b, V:] = mask_token + positions[decoder_index[b]]``, added in fp32.

    Args:
        visible: [B, V, D], the encoder's output projected to the decoder's width.
        mask_token: D values in any shape.
        positions: fp32 [N, D], the decoder's position table; no gradient.
        visible_index: int32 [B, V], token positions of the visible tokens.
        decoder_index: int32 [B, M], token positions of the mask tokens.
        impl: "auto", "triton" (CUDA), "native" (CPU) or "reference".

    Returns:
        [B, V + M, D], dtype of `visible`. The mask token's gradient is summed in fp32.

    Raises:
        ValueError: wrong shapes or dtypes.
        BackendUnavailableError: `impl` can't run here.

    Source: PretrainVisionTransformer.forward in models/modeling_pretrain.py, official V2 code.
    """
    if visible.ndim != 3 or not visible.is_floating_point():
        raise ValueError(f"visible must be floating [B, V, D], got {list(visible.shape)}")
    b, v, d = visible.shape
    check_index(visible_index, b, "visible_index")
    check_index(decoder_index, b, "decoder_index")
    if visible_index.shape[1] != v:
        raise ValueError(f"visible_index must be [{b}, {v}], got {list(visible_index.shape)}")
    if mask_token.numel() != d or positions.ndim != 2 or positions.shape[1] != d:
        raise ValueError(
            f"mask_token and positions must have width {d}, got {list(mask_token.shape)} "
            f"and {list(positions.shape)}"
        )
    token = mask_token if mask_token.ndim == 1 else mask_token.reshape(d)
    out: Tensor = _DECODER_ASSEMBLY(impl, visible, token, positions, visible_index, decoder_index)
    return out


def _forward_reference(
    visible: Tensor,
    mask_token: Tensor,
    positions: Tensor,
    visible_index: Tensor,
    decoder_index: Tensor,
) -> Tensor:
    compute = torch.promote_types(visible.dtype, torch.float32)
    table = positions.to(compute)
    seen = visible.to(compute) + table[visible_index.long()]
    hidden = mask_token.to(compute) + table[decoder_index.long()]
    return torch.cat([seen, hidden], dim=1).to(visible.dtype)


def _backward_reference(
    grad: Tensor, visible_tokens: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    compute = torch.promote_types(grad.dtype, torch.float32)
    grad_mask = grad[:, visible_tokens:].sum(dim=(0, 1), dtype=compute).to(dtype)
    return grad[:, :visible_tokens].clone(), grad_mask


_DECODER_ASSEMBLY = declare(
    "decoder_assembly",
    _forward_reference,
    triton=triton("decoder_assembly", "decoder_assembly"),
    native=native(in_fp32(tokens.decoder_assembly, "visible"), dtypes=FP32_BF16),
    gradient=Gradient(
        _backward_reference,
        of=("visible", "mask_token"),
        backends={
            "triton": triton("decoder_assembly", "decoder_assembly_backward"),
            "native": native(
                in_fp32(tokens.decoder_assembly_backward, "grad", "dtype"), dtypes=FP32_BF16
            ),
        },
        keep=lambda visible, mask_token: (visible.shape[1], mask_token.dtype),
    ),
)
