"""flash-attn-4 as registered ops, so that ``torch.compile`` sees one node and not its Python.

Written after its source (flash_attn/cute/interface.py, 2026) and tested with a stand-in of the same
interface; never run with flash-attn-4 itself.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module, metadata
from typing import Any, Final

import torch
from torch import Tensor

LEAST: Final = (4, 0, 0, 30)
"""Version 4.0.0b30: the backward of betas before lacks head dims."""


@cache
def too_old() -> str | None:
    """Why the version that is installed can't serve, or None."""
    try:
        found = metadata.version("flash-attn-4")
    except metadata.PackageNotFoundError:
        return "flash-attn-4 is installed without its metadata, so its version is not known"
    match = re.match(r"(\d+)\.(\d+)\.(\d+)(?:b(\d+))?", found)
    # A release comes after all betas of its number
    version = tuple(int(n) if n else 10**6 for n in match.groups()) if match else (0,)
    if version < LEAST:
        return f"flash-attn-4 is {found} here, and gradients need 4.0.0b30: install a newer one"
    return None


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of [B, N, heads, head dim] by flash-attn-4, forward and backward."""
    out: Tensor = _forward(query, key, value)[0]
    return out


def _interface() -> Any:
    return import_module("flash_attn.cute.interface")


@torch.library.custom_op("videomae_fast_libraries::flash_attn_4", mutates_args=())
def _forward(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """(output [B, Nq, heads, head dim], log-sum-exp [B, heads, Nq], fp32)."""
    out, lse = _interface()._flash_attn_fwd(query, key, value, return_lse=True)[:2]
    return out, lse


@_forward.register_fake
def _(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    b, n, heads, _ = query.shape
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    return out, query.new_empty((b, heads, n), dtype=torch.float32)


@torch.library.custom_op("videomae_fast_libraries::flash_attn_4_backward", mutates_args=())
def _backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    gradients: tuple[Tensor, ...] = _interface()._flash_attn_bwd(
        query, key, value, out, grad.contiguous(), lse
    )
    first, second, third = gradients[:3]
    return first, second, third


@_backward.register_fake
def _(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    first, second, third = (
        torch.empty_like(each, memory_format=torch.contiguous_format)
        for each in (query, key, value)
    )
    return first, second, third


def _setup(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    found: tuple[Tensor, Tensor, Tensor] = _backward(grad, *ctx.saved_tensors)
    return found


_forward.register_autograd(_gradients, setup_context=_setup)
