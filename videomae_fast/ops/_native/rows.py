"""The native ops over rows of features: LayerNorm and bias + GELU, forward and backward.

Rows are fp32 or bf16, which is computed with in fp32 and rounded at the end, as the references do;
vectors may be of either, too, and are read as fp32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from videomae_fast.arguments import Arguments, contiguous
from videomae_fast.ops._native.calls import call


def add_layer_norm(args: Arguments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A `delta` of None adds nothing: then `stream` is `x`."""
    x = args.x.contiguous()
    weight, bias, factor, scale = _fp32(args.weight, args.bias, args.factor, args.scale)
    delta, delta_bias = _branch(x, args.delta, args.delta_bias)
    out = torch.empty_like(x)
    stream = x if delta is None else torch.empty_like(x)
    mean, rstd = (torch.empty(x.shape[:-1], dtype=torch.float32) for _ in range(2))
    written = (None if delta is None else stream, out, mean, rstd)
    call(
        "vmf_add_layer_norm", "pppppppppppiiifbb",
        x, delta, delta_bias, scale, factor, weight, bias, *written,
        *_sizes(x, factor), args.eps, _is_bf16(x), _is_bf16(delta),
    )  # fmt: skip
    return out, stream, mean, rstd


def add_layer_norm_backward(args: Arguments) -> tuple[Tensor, ...]:
    """The branch is read only with a `scale`."""
    dtype = args.weight.dtype
    stream, grad_out, grad_stream, rounded = _of_one_dtype(
        args.stream, args.grad_out, args.grad_stream
    )
    mean, rstd, weight, scale, factor = _fp32(
        args.mean, args.rstd, args.weight, args.scale, args.factor
    )
    delta, delta_bias = _branch(stream, args.delta, args.delta_bias)
    width = stream.shape[-1]
    grad_x = torch.empty_like(stream)
    grad_delta = stream.new_empty(0 if scale is None and factor is None else stream.shape)
    grad_weight, grad_bias = torch.empty_like(weight), torch.empty_like(weight)
    grad_delta_bias = weight.new_empty(width if args.has_delta_bias else 0)
    grad_scale = weight.new_empty(0 if scale is None else width)
    call(
        "vmf_add_layer_norm_backward", "ppppppppppppppppiiibb",
        grad_out, grad_stream, stream, delta, delta_bias, scale, factor, weight, mean, rstd,
        grad_x, None if scale is None and factor is None else grad_delta, grad_weight, grad_bias,
        grad_delta_bias if args.has_delta_bias else None, None if scale is None else grad_scale,
        *_sizes(stream, factor), _is_bf16(stream), _is_bf16(delta),
    )  # fmt: skip
    return (
        grad_x.to(rounded),
        grad_delta.to(rounded),
        grad_weight.to(dtype),
        grad_bias.to(dtype),
        grad_delta_bias.to(dtype),
        grad_scale.to(dtype),
    )


def bias_gelu(args: Arguments) -> Tensor:
    """A bias of None adds nothing."""
    x, (bias,) = args.x.contiguous(), _fp32(args.bias)
    out = torch.empty_like(x)
    call("vmf_bias_gelu", "pppiib", x, bias, out, *_sizes(x)[:2], _is_bf16(x))
    return out


def bias_gelu_backward(args: Arguments) -> tuple[Tensor, Tensor]:
    x, grad, _, rounded = _of_one_dtype(args.x, args.grad)
    dtype = args.x.dtype if args.bias is None else args.bias.dtype
    (bias,) = _fp32(args.bias)
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
