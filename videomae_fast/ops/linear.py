"""The linear layer, on the matmul library that is fastest for the processor at hand.

On a GPU, and wherever nothing is gained, this is torch's own linear layer. On CPUs of other makers
than Intel, torch's fp32 matmul (MKL) leaves AVX-512 unused; oneDNN, which torch's builds for x86
bring along, uses it, and is about twice as fast (docs/performance-log.md).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops._derivatives import first_only
from videomae_fast.ops._dispatch import Backend, always, forced_impl, register
from videomae_fast.ops._processor import WHY_NO_GAIN

IMPLS = ("auto", "onednn", "torch", "reference")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, impl: str = "auto") -> Tensor:
    """``x weightᵀ + bias``.

    Args:
        x: [..., in].
        weight: [out, in].
        bias: [out] or None.
        impl: "onednn" (CPU, fp32), "torch" (its linear layer) or "auto": onednn where it is faster,
            on CPUs with AVX-512 that are not Intel's.

    Returns:
        [..., out].

    Raises:
        BackendUnavailableError: `impl` can't run here.
    """
    if impl == "auto" and forced_impl("linear") in IMPLS:
        impl = forced_impl("linear")
    if impl == "auto":
        own = WHY_NO_GAIN is None and _why_not(x, weight, bias) is None
        impl = "onednn" if own and not torch.is_autocast_enabled(x.device.type) else "torch"
    if impl == "torch":
        return F.linear(x, weight, bias)
    if impl not in IMPLS:
        raise BackendUnavailableError(f"linear has no backend {impl!r}; it has {IMPLS}")
    out: Tensor = _linear(x, weight, bias, impl)
    return out


@torch.library.custom_op("videomae_fast::linear", mutates_args=())
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, impl: str) -> Tensor:
    out: Tensor = FORWARD(impl, x, weight, bias)
    return out


@_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, impl: str) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


@torch.library.custom_op("videomae_fast::linear_backward", mutates_args=())
def _linear_backward(
    grad: Tensor, x: Tensor, weight: Tensor, for_x: bool, for_bias: bool, impl: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; x's and the bias's are empty where not wanted."""
    out: tuple[Tensor, Tensor, Tensor] = BACKWARD(impl, grad, x, weight, for_x, for_bias)
    return out


@_linear_backward.register_fake
def _(
    grad: Tensor, x: Tensor, weight: Tensor, for_x: bool, for_bias: bool, impl: str
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        x.new_empty(x.shape if for_x else 0),
        weight.new_empty(weight.shape),
        weight.new_empty(weight.shape[0] if for_bias else 0),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, impl = inputs
    ctx.save_for_backward(x, weight)
    ctx.has_bias, ctx.impl = bias is not None, impl


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
    x, weight = ctx.saved_tensors
    for_x = ctx.needs_input_grad[0]
    grad_x, grad_weight, grad_bias = _linear_backward(
        grad, x, weight, for_x, ctx.has_bias, ctx.impl
    )
    return grad_x if for_x else None, grad_weight, grad_bias if ctx.has_bias else None, None


_linear.register_autograd(_backward, setup_context=_setup)
first_only(_linear_backward, "linear")


def _matmul(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """``a bᵀ + bias`` by oneDNN; a [m, k] is made contiguous, b [n, k] is read as it lies."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")
    return out


def _forward_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out = _matmul(x.reshape(-1, x.shape[-1]), weight, bias)
    return out.view(*x.shape[:-1], weight.shape[0])


def _backward_onednn(
    grad: Tensor, x: Tensor, weight: Tensor, for_x: bool, for_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    rows, outer = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
    empty = x.new_empty(0)
    grad_x = _matmul(outer, weight.t()).view(x.shape) if for_x else empty
    # The first operand gets copied, transposed: the narrower one.
    if outer.shape[1] <= rows.shape[1]:
        grad_weight = _matmul(outer.t(), rows.t())
    else:
        grad_weight = _matmul(rows.t(), outer.t()).t().contiguous()
    return grad_x, grad_weight, outer.sum(0) if for_bias else empty.clone()


def _backward_reference(
    grad: Tensor, x: Tensor, weight: Tensor, for_x: bool, for_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    rows, outer = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
    empty = x.new_empty(0)
    return (
        (outer @ weight).view(x.shape) if for_x else empty,
        outer.t() @ rows,
        outer.sum(0) if for_bias else empty.clone(),
    )


def _why_not(*args: Any) -> str | None:
    for arg in args:
        if isinstance(arg, Tensor) and (arg.device.type, arg.dtype) != ("cpu", torch.float32):
            return f"oneDNN serves fp32 on the CPU here, not {arg.dtype} on {arg.device}"
    if not _AVAILABLE:
        return "this torch is built without oneDNN"
    return None


# Once, at import, so that torch.compile finds a plain constant.
_AVAILABLE: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]

FORWARD = register(
    "linear",
    onednn=Backend(_forward_onednn, _why_not),
    reference=Backend(F.linear, always),
)
BACKWARD = register(
    "linear_backward",
    onednn=Backend(_backward_onednn, _why_not),
    reference=Backend(_backward_reference, always),
)
