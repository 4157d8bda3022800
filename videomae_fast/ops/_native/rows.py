"""The native ops over rows of features: LayerNorm and bias + GELU, forward and backward.

Rows are fp32 or bf16, which is computed with in fp32 and rounded at the end, as the references do;
vectors may be of either, too, and are read as fp32.
"""

from __future__ import annotations

from typing import Any

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
        x: [..., D].
        delta: [..., D], a branch's output to add first, or None: then the three that belong to it
            are None, too.
        weight, bias: [D].
        delta_bias: [D], a bias that the branch's output still lacks, or None.
        scale: [D], LayerScale's, or None.
        factor: [F], drop path's, or None; each serves rows / F consecutive rows (a clip's).

    Returns:
        out and stream, [..., D], dtype of `x` (`stream` is `x` where nothing is added); mean and
        rstd, fp32 [...], for backward.
    """
    (x,) = contiguous(x)
    weight, bias, factor, scale = _fp32(weight, bias, factor, scale)
    delta, delta_bias = _branch(x, delta, delta_bias)
    out = torch.empty_like(x)
    stream = x if delta is None else torch.empty_like(x)
    mean, rstd = (torch.empty(x.shape[:-1], dtype=torch.float32) for _ in range(2))
    call(
        "vmf_add_layer_norm",
        "pppppppppppiiifbb",
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
        _is_bf16(x),
        _is_bf16(delta),
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
        grad_out: [..., D].
        grad_stream: [..., D], what reaches the stream otherwise (the residual path), or None.
        stream, mean, rstd: as `add_layer_norm` returned them.
        delta, delta_bias: needed only with a `scale`.
        weight, scale, factor: as given to `add_layer_norm`.
        has_delta_bias: whether the delta bias's gradient is wanted.

    Returns:
        Gradients of x (with `grad_stream` added), delta (empty where it equals x's: no scale and no
        factor), in the dtype of `stream`; of weight, bias, delta_bias (empty where not wanted) and
        scale (empty without one), in that of `weight`.
    """
    dtype = weight.dtype
    stream, grad_out, grad_stream, rounded = _of_one_dtype(stream, grad_out, grad_stream)
    mean, rstd, weight, scale, factor = _fp32(mean, rstd, weight, scale, factor)
    delta, delta_bias = _branch(stream, delta, delta_bias)
    width = stream.shape[-1]
    grad_x = torch.empty_like(stream)
    grad_delta = stream.new_empty(0 if scale is None and factor is None else stream.shape)
    grad_weight, grad_bias = torch.empty_like(weight), torch.empty_like(weight)
    grad_delta_bias = weight.new_empty(width if has_delta_bias else 0)
    grad_scale = weight.new_empty(0 if scale is None else width)
    call(
        "vmf_add_layer_norm_backward",
        "ppppppppppppppppiiibb",
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
        _is_bf16(stream),
        _is_bf16(delta),
    )
    return (
        grad_x.to(rounded),
        grad_delta.to(rounded),
        grad_weight.to(dtype),
        grad_bias.to(dtype),
        grad_delta_bias.to(dtype),
        grad_scale.to(dtype),
    )


def bias_gelu(x: Tensor, bias: Tensor | None) -> Tensor:
    """``gelu(x + bias)``, the exact (erf) form, of [..., D] and [D] or None; dtype of `x`."""
    (x,), (bias,) = contiguous(x), _fp32(bias)
    out = torch.empty_like(x)
    call("vmf_bias_gelu", "pppiib", x, bias, out, *_sizes(x)[:2], _is_bf16(x))
    return out


def bias_gelu_backward(grad: Tensor, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """The gradients of `bias_gelu` by x and by bias (empty without one), from forward's input.

    The same bits for any thread count.
    """
    dtype = x.dtype if bias is None else bias.dtype
    x, grad, _, rounded = _of_one_dtype(x, grad)
    (bias,) = _fp32(bias)
    grad_x = torch.empty_like(x)
    grad_bias = torch.empty(0 if bias is None else len(bias), dtype=torch.float32)
    found, sizes = None if bias is None else grad_bias, _sizes(x)[:2]
    call("vmf_bias_gelu_backward", "pppppiib", grad, x, bias, grad_x, found, *sizes, _is_bf16(x))
    return grad_x.to(rounded), grad_bias.to(dtype)


def _is_bf16(tensor: Tensor | None) -> int:
    return int(tensor is not None and tensor.dtype == torch.bfloat16)


def _fp32(*vectors: Any) -> tuple[Any, ...]:
    """Tensors in fp32, each contiguous; None stays None."""
    return tuple([None if one is None else one.contiguous().float() for one in vectors])


def _of_one_dtype(
    values: Tensor, grad: Tensor, other: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None, torch.dtype]:
    """Contiguous, in the dtype of `values`, or all in fp32 if they differ; and that of `values`."""
    dtype = values.dtype
    if grad.dtype != dtype or (other is not None and other.dtype != dtype):
        return (*_fp32(values, grad, other), dtype)
    return (*contiguous(values, grad, other), dtype)


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
    (bias,) = _fp32(delta_bias)
    return delta.contiguous(), torch.zeros(x.shape[-1]) if bias is None else bias
