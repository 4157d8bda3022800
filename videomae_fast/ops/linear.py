"""The linear layer, on the matmul library that is fastest for the processor at hand.

On a GPU, and wherever nothing is gained, this is torch's own linear layer. On CPUs of other makers
than Intel, torch's fp32 matmul (MKL) leaves AVX-512 unused; oneDNN, which torch's builds for x86
bring along, uses it, and is about twice as fast where it is full width, and by a few percent where
it is not. With AVX2 alone both are as fast, but for the gradient of a weight, which MKL makes of
its operands as they lie (docs/performance-log.md).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from videomae_fast.ops._declare import Gradient, declare
from videomae_fast.ops._processor import AVX512, WHY_NO_GAIN
from videomae_fast.ops.registry import FP32, Backend


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, impl: str = "auto") -> Tensor:
    """``x weightᵀ + bias``.

    Args:
        x: [..., in].
        weight: [out, in].
        bias: [out] or None.
        impl: "onednn" (CPU, fp32), "torch" (its linear layer) or "auto": onednn where it is faster,
            on CPUs with AVX2 that are not Intel's.

    Returns:
        [..., out].

    Raises:
        BackendUnavailableError: `impl` can't run here.
    """
    out: Tensor = _LINEAR(impl, x, weight, bias)
    return out


def packed_weight(weight: Tensor, rows: int) -> Tensor:
    """A weight as oneDNN's blocks, which :func:`linear` by "onednn" would else make in each call.

    For what learns nothing any more: results are the same bits, there is no gradient, and torch's
    other operations don't take such a tensor.

    Args:
        weight: fp32 [out, in], on the CPU.
        rows: that are usually multiplied at once; others work too.

    Returns:
        [out, in] in torch's mkldnn layout; nothing is shared with `weight`.

    Raises:
        RuntimeError: oneDNN is not here, or a dtype that it does not take.
    """
    out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), rows)
    return out


def packed_linear_gelu(x: Tensor, packed: Tensor, bias: Tensor) -> Tensor:
    """``gelu(x weightᵀ + bias)``, the exact form with erf, in one pass and without a gradient.

    Args:
        x: fp32 [..., in], on the CPU.
        packed: [out, in], of :func:`packed_weight`.
        bias: fp32 [out].

    Returns:
        fp32 [..., out]; nothing else as large is written.
    """
    rows = x.reshape(-1, x.shape[-1])
    out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "gelu", [], "none")
    return out.view(*x.shape[:-1], packed.shape[0])


def why_not_packed() -> str | None:
    """Why nothing is gained by :func:`packed_weight` in this process, or None."""
    return _unavailable() or _no_gain()


def _forward_by(product: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        out = product(x.reshape(-1, x.shape[-1]), weight, bias)
        return out.view(*x.shape[:-1], weight.shape[0])

    return forward


def _backward_by(
    product: Callable[..., Tensor], of_weight: Callable[[Tensor, Tensor], Tensor]
) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    def backward(
        grad: Tensor, x: Tensor, weight: Tensor, needs_x: bool, needs_bias: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x, weight and bias; x's and the bias's are empty where not wanted."""
        rows, outer = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
        grad_x = product(outer, weight.t()).view(x.shape) if needs_x else x.new_empty(0)
        grad_bias = outer.sum(0) if needs_bias else x.new_empty(0)
        return grad_x, of_weight(outer, rows), grad_bias

    return backward


def _transposed_product(outer: Tensor, rows: Tensor) -> Tensor:
    """``outerᵀ rows``."""
    return outer.t() @ rows


def _onednn_transposed_product(outer: Tensor, rows: Tensor) -> Tensor:
    """The same; the first operand gets copied, transposed: the narrower one."""
    if outer.shape[1] <= rows.shape[1]:
        return _onednn(outer.t(), rows.t())
    return _onednn(rows.t(), outer.t()).t().contiguous()


def _onednn(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """``a bᵀ + bias``; a [m, k] is made contiguous, b [n, k] is read as it lies."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")
    return out


def _unavailable() -> str | None:
    return None if _AVAILABLE else "this torch is built without oneDNN"


def _no_gain() -> str | None:
    """Autocast casts for torch's own linear layer only."""
    return "autocast is on" if torch.is_autocast_enabled("cpu") else WHY_NO_GAIN


# Once, at import, so that torch.compile finds a plain constant.
_AVAILABLE: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
_OF_ONEDNN = partial(Backend, title="oneDNN", device="cpu", dtypes=FP32, missing=_unavailable)

_LINEAR = declare(
    "linear",
    _forward_by(F.linear),
    onednn=_OF_ONEDNN(_forward_by(_onednn), held_back=_no_gain),
    torch=Backend(F.linear, "torch", composite=True),
    gradient=Gradient(
        _backward_by(F.linear, _transposed_product),
        of=("x", "weight", "bias"),
        backends={
            "onednn": _OF_ONEDNN(
                _backward_by(_onednn, _onednn_transposed_product if AVX512 else _transposed_product)
            )
        },
    ),
)
