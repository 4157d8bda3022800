"""An MLP as one op, so that bias, GELU and its slope can be in the epilogues of its matmuls."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from videomae_fast.ops._declare import Gradient, declare, triton
from videomae_fast.ops.bias_gelu import gelu_slope


def gelu_mlp(
    x: Tensor, first: Tensor, bias: Tensor, second: Tensor, *, impl: str = "auto"
) -> Tensor:
    """``gelu(x firstᵀ + bias) secondᵀ``, the exact form with erf.

    No model takes it unless asked to (:attr:`videomae_fast.models.transformer.Mlp.fused`): whether
    Triton's matmuls come close enough to the library's is not yet measured.

    Args:
        x: [..., in].
        first: [hidden, in]; under autocast it is cast, and so are x and `second`.
        bias: [hidden], of the first layer, in any dtype.
        second: [out, hidden].
        impl: "triton": both in the epilogues; "reference": in plain torch, in fp32.

    Returns:
        [..., out].

    Raises:
        ValueError: wrong shapes.
        BackendUnavailableError: `impl` can't run here.
    """
    if first.shape != (bias.shape[0], x.shape[-1]) or second.shape[1:] != bias.shape:
        shapes = [list(one.shape) for one in (x, first, bias, second)]
        raise ValueError(f"x, first, bias and second don't fit each other: {shapes}")
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, first, second = x.to(dtype), first.to(dtype), second.to(dtype)
    out: Tensor = _GELU_MLP(impl, x, first, bias, second)[0]
    return out


def _forward_reference(
    x: Tensor, first: Tensor, bias: Tensor, second: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(output [..., out], hidden and active [..., hidden] for the backward)."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    product = F.linear(x.to(dtype), first.to(dtype))
    active = F.gelu(product + bias.to(dtype)).to(x.dtype)
    out = F.linear(active.to(dtype), second.to(dtype))
    return out.to(x.dtype), product.to(x.dtype), active


def _backward_reference(
    grad: Tensor,
    x: Tensor,
    first: Tensor,
    bias: Tensor,
    second: Tensor,
    hidden: Tensor,
    active: Tensor,
    needs_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x (empty where not wanted), first, bias and second."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    outer, rows, through = (one.to(dtype).reshape(-1, one.shape[-1]) for one in (grad, x, active))
    z = hidden.to(dtype).reshape(-1, bias.shape[0]) + bias.to(dtype)
    slope = (outer @ second.to(dtype)) * gelu_slope(z)
    of_hidden = slope.to(x.dtype).to(dtype)
    grad_x = (of_hidden @ first.to(dtype)).view(x.shape) if needs_x else x.new_empty(0)
    return (
        grad_x.to(x.dtype),
        (of_hidden.t() @ rows).to(first.dtype),
        slope.sum(0).to(bias.dtype),
        (outer.t() @ through).to(second.dtype),
    )


def _unfit(x: Tensor, first: Tensor, second: Tensor) -> str | None:
    if not x.dtype == first.dtype == second.dtype:
        return f"x, first and second are {x.dtype}, {first.dtype}, {second.dtype}"
    return None


_GELU_MLP = declare(
    "gelu_mlp",
    _forward_reference,
    triton=triton("gelu_mlp", "forward", unfit=_unfit),
    gradient=Gradient(
        _backward_reference,
        of=("x", "first", "bias", "second"),
        backends={"triton": triton("gelu_mlp", "backward", unfit=_unfit)},
        results=("out", "hidden", "active"),
    ),
)
