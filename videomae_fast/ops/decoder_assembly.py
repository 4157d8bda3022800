"""Decoder sequence assembly: projected visible tokens, then mask tokens, each with its position."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from videomae_fast.ops import _native
from videomae_fast.ops._derivatives import first_only
from videomae_fast.ops._dispatch import (
    Backend,
    always,
    lazy,
    needs_native,
    needs_triton,
    register,
)
from videomae_fast.ops.checks import check_index


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
    out: Tensor = _decoder_assembly(
        visible, mask_token.reshape(d), positions, visible_index, decoder_index, impl
    )
    return out


@torch.library.custom_op("videomae_fast::decoder_assembly", mutates_args=())
def _decoder_assembly(
    visible: Tensor,
    mask_token: Tensor,
    positions: Tensor,
    visible_index: Tensor,
    decoder_index: Tensor,
    impl: str,
) -> Tensor:
    out: Tensor = FORWARD(impl, visible, mask_token, positions, visible_index, decoder_index)
    return out


@_decoder_assembly.register_fake
def _(
    visible: Tensor,
    mask_token: Tensor,
    positions: Tensor,
    visible_index: Tensor,
    decoder_index: Tensor,
    impl: str,
) -> Tensor:
    b, v, d = visible.shape
    return visible.new_empty((b, v + decoder_index.shape[1], d))


@torch.library.custom_op("videomae_fast::decoder_assembly_backward", mutates_args=())
def _decoder_assembly_backward(
    grad: Tensor, visible_tokens: int, dtype: torch.dtype, impl: str
) -> tuple[Tensor, Tensor]:
    out: tuple[Tensor, Tensor] = BACKWARD(impl, grad, visible_tokens, dtype)
    return out


@_decoder_assembly_backward.register_fake
def _(grad: Tensor, visible_tokens: int, dtype: torch.dtype, impl: str) -> tuple[Tensor, Tensor]:
    b, _, d = grad.shape
    return grad.new_empty((b, visible_tokens, d)), grad.new_empty((d,), dtype=dtype)


def _setup(
    ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, str], output: Tensor
) -> None:
    visible, mask_token, _, _, _, impl = inputs
    ctx.visible_tokens, ctx.dtype, ctx.impl = visible.shape[1], mask_token.dtype, impl


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
    grad_visible, grad_mask = _decoder_assembly_backward(
        grad, ctx.visible_tokens, ctx.dtype, ctx.impl
    )
    return grad_visible, grad_mask, None, None, None, None


_decoder_assembly.register_autograd(_backward, setup_context=_setup)
first_only(_decoder_assembly_backward, "decoder_assembly")


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


def _forward_native_why_not(visible: Tensor, mask_token: Tensor, *rest: Tensor) -> str | None:
    if not visible.dtype == mask_token.dtype == torch.float32:
        return f"the native library takes fp32, not {visible.dtype} and {mask_token.dtype}"
    return needs_native(visible, mask_token, *rest)


def _backward_native(
    grad: Tensor, visible_tokens: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    return _native.decoder_assembly_backward(grad, visible_tokens)


def _backward_native_why_not(grad: Tensor, visible_tokens: int, dtype: torch.dtype) -> str | None:
    if not grad.dtype == dtype == torch.float32:
        return f"the native library takes fp32, not {grad.dtype} and {dtype}"
    return needs_native(grad)


_TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def _forward_triton_why_not(
    visible: Tensor, mask_token: Tensor, positions: Tensor, *index: Tensor
) -> str | None:
    for tensor in (visible, mask_token, positions):
        if tensor.dtype not in _TRITON_DTYPES:
            return f"the kernel takes fp32, bf16 and fp16, not {tensor.dtype}"
    return needs_triton(visible, mask_token, positions, *index)


def _backward_triton_why_not(grad: Tensor, visible_tokens: int, dtype: torch.dtype) -> str | None:
    if grad.dtype not in _TRITON_DTYPES or dtype not in _TRITON_DTYPES:
        return f"the kernel takes fp32, bf16 and fp16, not {grad.dtype} and {dtype}"
    return needs_triton(grad)


FORWARD = register(
    "decoder_assembly",
    triton=Backend(lazy("decoder_assembly", "decoder_assembly"), _forward_triton_why_not),
    native=Backend(_native.decoder_assembly, _forward_native_why_not),
    reference=Backend(_forward_reference, always),
)
BACKWARD = register(
    "decoder_assembly_backward",
    triton=Backend(lazy("decoder_assembly", "decoder_assembly_backward"), _backward_triton_why_not),
    native=Backend(_backward_native, _backward_native_why_not),
    reference=Backend(_backward_reference, always),
)
