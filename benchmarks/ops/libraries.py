"""Other libraries' kernels for the ops that :mod:`benchmarks.ops.speed` measures: a line each.

Forward; of RoI features backward too, by autograd from what its forward pass kept. A library
computes what an op computes from what its users have: the branch with its bias already added (their
matmul does that) and vectors in the activations' dtype where the kernel wants them so; both are
made before the clock starts. What it returns are the op's first results.

Left out: Liger's GELU, which is the tanh form; apex's, Liger's and quack's RMSNorm. Attention of
other libraries is in :mod:`benchmarks.ops.attention_choice`, backward with it, torch's kernels one
by one in :mod:`benchmarks.gpu.ceilings`. The signatures are those of each library's source in 2026;
none but torch's was run by us.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from videomae_fast.ops.roi_align import RoiSpec

Call = Callable[[], Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True)
class Library:
    """A library's function for an op.

    Attributes:
        op: the op's name in the registry of `videomae_fast.ops`; a backward op's library gets the
            gradient and then the arguments of the forward one.
        name: how tables call it.
        source: module and function, "package.module:function".
        prepare: takes the function and the op's arguments, returns the call to be timed.
        on: types of the devices it runs on.
        needs: a module that must import too: the kernels of a package that installs without them.
    """

    op: str
    name: str
    source: str
    prepare: Callable[..., Call]
    on: tuple[str, ...] = ("cuda",)
    needs: str | None = None

    def contender(self, args: tuple[Any, ...]) -> Call | str:
        """The call for the op's arguments, or why there is none."""
        module, _, function = self.source.partition(":")
        try:
            if self.needs is not None:
                import_module(self.needs)
            found = getattr(import_module(module), function)
        except ModuleNotFoundError as error:
            return f"not installed ({error})"
        except Exception as error:  # whatever a foreign package does on import
            return f"does not import: {type(error).__name__}: {error}"
        device = next(arg.device for arg in args if isinstance(arg, Tensor))
        if device.type not in self.on:
            return f"runs on {', '.join(self.on)}, not on {device}"
        return self.prepare(found, *args)


def _norm_of_sum(norm: Callable[..., Tensor]) -> Callable[..., Call]:
    """add_layer_norm by torch's add and a library's LayerNorm; `norm` orders its arguments."""

    def prepare(
        function: Any, x: Tensor, delta: Tensor, weight: Tensor, bias: Tensor,
        delta_bias: Tensor, scale: None, factor: None, eps: float,
    ) -> Call:  # fmt: skip
        branch = delta + delta_bias.to(delta.dtype)
        vectors = weight.to(x.dtype), bias.to(x.dtype)

        def call() -> tuple[Tensor, Tensor]:
            stream = x + branch
            return norm(function, stream, *vectors, eps), stream

        return call

    return prepare


def _quack(
    function: Any, x: Tensor, delta: Tensor, weight: Tensor, bias: Tensor,
    delta_bias: Tensor, scale: None, factor: None, eps: float,
) -> Call:  # fmt: skip
    branch = delta + delta_bias.to(delta.dtype)

    def call() -> tuple[Tensor, Tensor]:
        stream = x + branch
        rows = stream.flatten(0, -2)  # it takes matrices, and fp32 vectors
        return function(rows, weight, bias, eps=eps).view_as(stream), stream

    return call


def _flash_attn(
    function: Any, x: Tensor, delta: Tensor, weight: Tensor, bias: Tensor,
    delta_bias: Tensor, scale: None, factor: None, eps: float,
) -> Call:  # fmt: skip
    branch = delta + delta_bias.to(delta.dtype)
    return lambda: function(branch, weight, bias, residual=x, eps=eps, prenorm=True)


def _torch_attention(
    function: Any, query: Tensor, key: Tensor, value: Tensor, key_count: None
) -> Call:
    heads_first = [x.transpose(1, 2) for x in (query, key, value)]
    return lambda: (function(*heads_first).transpose(1, 2),)


def _torch_gelu(function: Any, x: Tensor, bias: Tensor) -> Call:
    vector = bias.to(x.dtype)
    return lambda: function(x + vector)


def _roi_chain(
    function: Any, tokens: Tensor, boxes: Tensor, clip: Tensor, slots: int, height: int, width: int,
    size: int, scale: float, sampling_ratio: int, aligned: bool,
) -> Call:  # fmt: skip
    """The mean over time, torchvision's RoIAlign, the maximum over bins: as the official code."""
    rois = torch.cat([clip[:, None].to(tokens.dtype), boxes.to(tokens.dtype)], 1)

    def call() -> tuple[Tensor]:
        maps = tokens.view(-1, slots, height, width, tokens.shape[2]).mean(1)
        maps = maps.permute(0, 3, 1, 2).contiguous()
        bins = function(maps, rois, (size, size), scale, sampling_ratio or -1, aligned)
        return (bins.amax((2, 3)),)

    return call


def _roi_chain_of_ours(
    function: Any, tokens: Tensor, boxes: Tensor, clip: Tensor, slots: int, height: int, width: int,
    *settings: Any,
) -> Call:  # fmt: skip
    """The same by this library's RoIAlign, in plain torch."""
    spec = RoiSpec(*settings)

    def call() -> tuple[Tensor]:
        maps = tokens.view(-1, slots, height, width, tokens.shape[2]).mean(1).permute(0, 3, 1, 2)
        return (function(maps, boxes, clip, spec).amax((2, 3)),)

    return call


def _backward_of(chain: Callable[..., Call]) -> Callable[..., Call]:
    """The gradient of a chain's first argument under autograd; its forward pass is not timed."""

    def prepare(function: Any, grad: Tensor, first: Tensor, *others: Any) -> Call:
        with torch.enable_grad():
            first = first.detach().requires_grad_()
            (out,) = chain(function, first, *others)()
        return lambda: torch.autograd.grad(out, first, grad, retain_graph=True)[0]

    return prepare


_NORM = "add_layer_norm"
_in_torch = _norm_of_sum(lambda f, x, w, b, eps: f(x, x.shape[-1:], w, b, eps))
_in_apex = _norm_of_sum(lambda f, x, w, b, eps: f(x, w, b, x.shape[-1:], eps))
_in_liger = _norm_of_sum(lambda f, x, w, b, eps: f.apply(x, w, b, eps))

LIBRARIES = (
    Library(_NORM, "torch", "torch.nn.functional:layer_norm", _in_torch, ("cpu", "cuda")),
    Library(
        _NORM,
        "apex",
        "apex.normalization.fused_layer_norm:fused_layer_norm_affine",
        _in_apex,
        needs="fused_layer_norm_cuda",
    ),
    Library(_NORM, "liger", "liger_kernel.ops.layer_norm:LigerLayerNormFunction", _in_liger),
    Library(_NORM, "quack", "quack.rmsnorm:layernorm_fwd", _quack),
    Library(_NORM, "flash-attn", "flash_attn.ops.triton.layer_norm:layer_norm_fn", _flash_attn),
    Library("bias_gelu", "torch", "torch.nn.functional:gelu", _torch_gelu, ("cpu", "cuda")),
    Library(
        "attention",
        "torch",
        "torch.nn.functional:scaled_dot_product_attention",
        _torch_attention,
        ("cpu", "cuda"),
    ),
    Library(
        "roi_features",
        "unfused chain, torchvision",
        "torchvision.ops:roi_align",
        _roi_chain,
        ("cpu", "cuda"),
    ),
    Library(
        "roi_features",
        "unfused chain",
        "videomae_fast.ops.roi_align:roi_align",
        _roi_chain_of_ours,
        ("cpu", "cuda"),
    ),
    Library(
        "roi_features_backward",
        "unfused chain, torchvision",
        "torchvision.ops:roi_align",
        _backward_of(_roi_chain),
        ("cpu", "cuda"),
    ),
    Library(
        "roi_features_backward",
        "unfused chain",
        "videomae_fast.ops.roi_align:roi_align",
        _backward_of(_roi_chain_of_ours),
        ("cpu", "cuda"),
    ),
)


def library_contenders(op: str, args: tuple[Any, ...]) -> dict[str, Call | str]:
    """Callables by the libraries' names, and why the others can't run."""
    with torch.no_grad():
        return {each.name: each.contender(args) for each in LIBRARIES if each.op == op}
