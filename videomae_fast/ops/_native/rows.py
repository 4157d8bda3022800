"""The native ops over rows of features: LayerNorm and bias + GELU, forward and backward, fp32."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from videomae_fast.ops._native.calls import call, expect


class LayerNormOutput(NamedTuple):
    """What `add_layer_norm` returns; `stream` is `x` itself where nothing was added."""

    out: Tensor
    stream: Tensor
    mean: Tensor
    rstd: Tensor


class LayerNormGradients(NamedTuple):
    """What `add_layer_norm_backward` returns."""

    x: Tensor
    delta: Tensor | None
    weight: Tensor
    bias: Tensor
    delta_bias: Tensor | None
    scale: Tensor | None


def _rows(tensor: Tensor, width: int) -> int:
    return tensor.numel() // width if width else 0


def add_layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    *,
    delta: Tensor | None = None,
    delta_bias: Tensor | None = None,
    scale: Tensor | None = None,
    factor: Tensor | None = None,
) -> LayerNormOutput:
    """LayerNorm of ``stream = x + factor * scale * (delta + delta_bias)``.

    Args:
        x: fp32 [..., D].
        weight, bias: fp32 [D].
        delta: fp32 [..., D], a branch's output to add first, or None.
        delta_bias: fp32 [D], a bias that the branch's output still lacks, or None.
        scale: fp32 [D], LayerScale's, or None.
        factor: fp32 [F], drop path's, or None; each serves rows / F consecutive rows (a clip's).

    Returns:
        out and stream, fp32 [..., D]; mean and rstd, fp32 [rows], for backward.

    Raises:
        ValueError: wrong shape or dtype; a scale or factor without a delta.
    """
    width = x.shape[-1]
    rows = _rows(x, width)
    x = expect(x, "x", torch.float32, tuple(x.shape))
    weight = expect(weight, "weight", torch.float32, (width,))
    bias = expect(bias, "bias", torch.float32, (width,))
    delta, delta_bias, scale = _branch(x, delta, delta_bias, scale)
    factor, rows_per_factor = _factor(factor, rows, delta is not None)
    out = torch.empty(x.shape, dtype=torch.float32)
    stream = None if delta is None else torch.empty(x.shape, dtype=torch.float32)
    mean, rstd = (torch.empty(rows, dtype=torch.float32) for _ in range(2))
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
        stream,
        out,
        mean,
        rstd,
        rows,
        width,
        rows_per_factor,
        eps,
    )
    return LayerNormOutput(out, x if stream is None else stream, mean, rstd)


def add_layer_norm_backward(
    grad_out: Tensor,
    stream: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    *,
    grad_stream: Tensor | None = None,
    delta: Tensor | None = None,
    delta_bias: Tensor | None = None,
    scale: Tensor | None = None,
    factor: Tensor | None = None,
    with_delta_bias: bool = False,
) -> LayerNormGradients:
    """The gradients of `add_layer_norm`; the same bits for any thread count.

    Args:
        grad_out: fp32 [..., D].
        stream, mean, rstd: as `add_layer_norm` returned them.
        grad_stream: fp32 [..., D], what reaches the stream otherwise (the residual path), or None.
        delta, delta_bias: needed only with a `scale`.
        with_delta_bias: whether the delta bias's gradient is wanted.
        weight, scale, factor: as given to `add_layer_norm`.

    Returns:
        x (with `grad_stream` added), delta (None where it equals x: no scale and no factor),
        weight, bias, delta_bias (None where not wanted) and scale (None without one).

    Raises:
        ValueError: wrong shape or dtype.
    """
    shape, width = tuple(stream.shape), stream.shape[-1]
    rows = _rows(stream, width)
    stream = expect(stream, "stream", torch.float32, shape)
    grad_out = expect(grad_out, "grad_out", torch.float32, shape)
    if grad_stream is not None:
        grad_stream = expect(grad_stream, "grad_stream", torch.float32, shape)
    weight = expect(weight, "weight", torch.float32, (width,))
    mean = expect(mean, "mean", torch.float32, (rows,))
    rstd = expect(rstd, "rstd", torch.float32, (rows,))
    delta, delta_bias, scale = _branch(stream, delta, delta_bias, scale)
    factor, rows_per_factor = _factor(factor, rows, True)
    grad_x = torch.empty(shape, dtype=torch.float32)
    own = scale is not None or factor is not None
    grad_delta = torch.empty(shape, dtype=torch.float32) if own else None
    grad_weight, grad_bias = (torch.empty(width, dtype=torch.float32) for _ in range(2))
    grad_delta_bias = torch.empty(width, dtype=torch.float32) if with_delta_bias else None
    grad_scale = None if scale is None else torch.empty(width, dtype=torch.float32)
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
        grad_delta,
        grad_weight,
        grad_bias,
        grad_delta_bias,
        grad_scale,
        rows,
        width,
        rows_per_factor,
    )
    return LayerNormGradients(
        grad_x, grad_delta, grad_weight, grad_bias, grad_delta_bias, grad_scale
    )


def bias_gelu(x: Tensor, bias: Tensor | None) -> Tensor:
    """``gelu(x + bias)``, the exact (erf) form.

    Args:
        x: fp32 [..., D].
        bias: fp32 [D] or None.

    Returns:
        fp32 [..., D].

    Raises:
        ValueError: wrong shape or dtype.
    """
    width = x.shape[-1]
    x = expect(x, "x", torch.float32, tuple(x.shape))
    if bias is not None:
        bias = expect(bias, "bias", torch.float32, (width,))
    out = torch.empty(x.shape, dtype=torch.float32)
    call("vmf_bias_gelu", "pppii", x, bias, out, _rows(x, width), width)
    return out


def bias_gelu_backward(
    grad: Tensor, x: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The gradients of `bias_gelu` by x and by bias (None without one), from forward's input.

    The same bits for any thread count.

    Raises:
        ValueError: wrong shape or dtype.
    """
    width = x.shape[-1]
    x = expect(x, "x", torch.float32, tuple(x.shape))
    grad = expect(grad, "grad", torch.float32, tuple(x.shape))
    grad_bias = None
    if bias is not None:
        bias = expect(bias, "bias", torch.float32, (width,))
        grad_bias = torch.empty(width, dtype=torch.float32)
    grad_x = torch.empty(x.shape, dtype=torch.float32)
    rows = _rows(x, width)
    call("vmf_bias_gelu_backward", "pppppii", grad, x, bias, grad_x, grad_bias, rows, width)
    return grad_x, grad_bias


def _branch(
    x: Tensor, delta: Tensor | None, delta_bias: Tensor | None, scale: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    width = x.shape[-1]
    if delta is None:
        if delta_bias is not None or scale is not None:
            raise ValueError("a delta_bias or a scale needs the delta that it belongs to")
        return None, None, None
    delta = expect(delta, "delta", torch.float32, tuple(x.shape))
    if delta_bias is None:
        delta_bias = torch.zeros(width)
    delta_bias = expect(delta_bias, "delta_bias", torch.float32, (width,))
    if scale is not None:
        scale = expect(scale, "scale", torch.float32, (width,))
    return delta, delta_bias, scale


def _factor(factor: Tensor | None, rows: int, has_delta: bool) -> tuple[Tensor | None, int]:
    if factor is None:
        return None, 1
    if not has_delta:
        raise ValueError("a factor needs the delta that it scales")
    count = factor.numel()
    if factor.ndim != 1 or count == 0 or rows % count:
        raise ValueError(
            f"factor must be fp32 [F] with F dividing {rows}, got {list(factor.shape)}"
        )
    return expect(factor, "factor", torch.float32, (count,)), max(rows // count, 1)
