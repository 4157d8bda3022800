"""The native ops over rows of features: LayerNorm and bias + GELU, forward and backward, fp32."""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.ops._native.calls import call, contiguous


def add_layer_norm(
    x: Tensor,
    delta: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    delta_bias: Tensor | None,
    scale: Tensor | None,
    factor: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """LayerNorm of ``stream = x + factor * scale * (delta + delta_bias)``.

    Args:
        x: fp32 [..., D].
        delta: fp32 [..., D], a branch's output to add first, or None: then the three that belong
            to it are None, too.
        weight, bias: fp32 [D].
        delta_bias: fp32 [D], a bias that the branch's output still lacks, or None.
        scale: fp32 [D], LayerScale's, or None.
        factor: fp32 [F], drop path's, or None; each serves rows / F consecutive rows (a clip's).

    Returns:
        out and stream, fp32 [..., D] (`stream` is `x` where nothing is added); mean and rstd,
        fp32 [...], for backward.
    """
    x, weight, bias, factor, scale = contiguous(x, weight, bias, factor, scale)
    delta, delta_bias = _branch(x, delta, delta_bias)
    out = torch.empty_like(x)
    stream = x if delta is None else torch.empty_like(x)
    mean, rstd = x.new_empty(x.shape[:-1]), x.new_empty(x.shape[:-1])
    call(
        "vmf_add_layer_norm",
        "pppppppppppiiif",
        x,
        delta,
        delta_bias,
        scale,
        factor,
        weight,
        bias,
        None if delta is None else stream,
        out,
        mean,
        rstd,
        *_sizes(x, factor),
        eps,
    )
    return out, stream, mean, rstd


def add_layer_norm_backward(
    grad_out: Tensor,
    grad_stream: Tensor | None,
    stream: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    delta: Tensor | None,
    delta_bias: Tensor | None,
    scale: Tensor | None,
    factor: Tensor | None,
    has_delta_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of `add_layer_norm`; the same bits for any thread count.

    Args:
        grad_out: fp32 [..., D].
        grad_stream: fp32 [..., D], what reaches the stream otherwise (the residual path), or None.
        stream, mean, rstd: as `add_layer_norm` returned them.
        delta, delta_bias: needed only with a `scale`.
        weight, scale, factor: as given to `add_layer_norm`.
        has_delta_bias: whether the delta bias's gradient is wanted.

    Returns:
        Gradients of x (with `grad_stream` added), delta (empty where it equals x's: no scale and no
        factor), weight, bias, delta_bias (empty where not wanted) and scale (empty without one).
    """
    grad_out, grad_stream, stream, mean, rstd = contiguous(
        grad_out, grad_stream, stream, mean, rstd
    )
    weight, scale, factor = contiguous(weight, scale, factor)
    delta, delta_bias = _branch(stream, delta, delta_bias)
    width = stream.shape[-1]
    grad_x = torch.empty_like(stream)
    grad_delta = stream.new_empty(0 if scale is None and factor is None else stream.shape)
    grad_weight, grad_bias = torch.empty_like(weight), torch.empty_like(weight)
    grad_delta_bias = weight.new_empty(width if has_delta_bias else 0)
    grad_scale = weight.new_empty(0 if scale is None else width)
    call(
        "vmf_add_layer_norm_backward",
        "ppppppppppppppppiii",
        grad_out,
        grad_stream,
        stream,
        delta,
        delta_bias,
        scale,
        factor,
        weight,
        mean,
        rstd,
        grad_x,
        None if scale is None and factor is None else grad_delta,
        grad_weight,
        grad_bias,
        grad_delta_bias if has_delta_bias else None,
        None if scale is None else grad_scale,
        *_sizes(stream, factor),
    )
    return grad_x, grad_delta, grad_weight, grad_bias, grad_delta_bias, grad_scale


def bias_gelu(x: Tensor, bias: Tensor | None) -> Tensor:
    """``gelu(x + bias)``, the exact (erf) form, of fp32 [..., D] and [D] or None: fp32 [..., D]."""
    x, bias = contiguous(x, bias)
    out = torch.empty_like(x)
    call("vmf_bias_gelu", "pppii", x, bias, out, *_sizes(x)[:2])
    return out


def bias_gelu_backward(grad: Tensor, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """The gradients of `bias_gelu` by x and by bias (empty without one), from forward's input.

    The same bits for any thread count.
    """
    grad, x, bias = contiguous(grad, x, bias)
    grad_x, grad_bias = torch.empty_like(x), x.new_empty(0 if bias is None else len(bias))
    found = None if bias is None else grad_bias
    call("vmf_bias_gelu_backward", "pppppii", grad, x, bias, grad_x, found, *_sizes(x)[:2])
    return grad_x, grad_bias


def _sizes(x: Tensor, factor: Tensor | None = None) -> tuple[int, int, int]:
    """Rows, width, and rows per factor."""
    width = x.shape[-1]
    rows = x.numel() // width if width else 0
    return rows, width, 1 if factor is None else max(rows // max(len(factor), 1), 1)


def _branch(
    x: Tensor, delta: Tensor | None, delta_bias: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """A branch's output and its bias, which is zeros where it has none."""
    if delta is None:
        return None, None
    bias = x.new_zeros(x.shape[-1]) if delta_bias is None else delta_bias.contiguous()
    return delta.contiguous(), bias
