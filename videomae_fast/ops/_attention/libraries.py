"""Attention of torch and of other libraries, each a backend that says why it can't run.

They bring their own backward. None is imported before it is asked for. torch's own attention is
there as a whole ("sdpa", which picks one of its backends) and by backend. "auto" gets as far as
"sdpa", which takes every call; a table may name the others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from videomae_fast.ops._attention import flash_attn_4
from videomae_fast.ops.registry import UP_TO_FP32, Backend

HALF = (torch.bfloat16, torch.float16)


def key_mask(key: Tensor, key_count: Tensor) -> Tensor:
    """bool [B, 1, 1, Nk], True where a key takes part."""
    position = torch.arange(key.shape[1], device=key.device)
    return (position < key_count[:, None])[:, None, None, :]


def _sdpa(*args: Any) -> Tensor:
    *heads, key_count = args
    mask = None if key_count is None else key_mask(heads[1], key_count)
    q, k, v = (x.transpose(1, 2) for x in heads)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def _torchs(backend: SDPBackend) -> Callable[..., Tensor]:
    """torch's attention by one of its backends alone, forward and backward."""

    def run(*args: Any) -> Tensor:
        with sdpa_kernel(backend):
            return _sdpa(*args)

    return run


def _counted(title: str) -> Callable[..., str | None]:
    def unfit(key_count: Tensor | None) -> str | None:
        return None if key_count is None else f"{title} serves here without key_count only"

    return unfit


def _flash_unfit(query: Tensor, key_count: Tensor | None) -> str | None:
    if query.device.type not in ("cuda", "cpu"):
        return f"torch's flash attention needs CUDA or CPU tensors, not {query.device}"
    if query.device.type == "cuda" and query.dtype not in HALF:
        return f"torch's flash attention takes bf16 and fp16, not {query.dtype}"
    return _counted("torch's flash attention")(key_count)


def _any_order(backend: str) -> str | None:
    """Why a backend whose backward adds up in any order can't serve, or None."""
    if torch.are_deterministic_algorithms_enabled():
        return f"{backend}'s gradients are added up in any order, and torch is to be deterministic"
    return None


def _cudnn_unfit(key_count: Tensor | None) -> str | None:
    return _any_order("cuDNN") or _counted("torch's cuDNN attention")(key_count)


@cache
def _missing(module: str, function: str, package: str) -> str | None:
    """Why a library's function can't be imported, or None. Its import may fail in any way."""
    try:
        getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        return f"{package} is not installed ({error})"
    except Exception as error:
        return f"{package} does not import: {type(error).__name__}: {error}"
    return None


def library(
    module: str,
    function: str,
    package: str,
    capability: tuple[int, int],
    multiple: int,
    *,
    ordered: bool = False,
    call: Callable[..., Any] | None = None,
    too_old: Callable[[], str | None] = lambda: None,
) -> Backend:
    """The attention of a package, as ``function(query, key, value)`` of its module.

    Args:
        ordered: whether it takes ``deterministic``, and adds gradients up in a fixed order then.
        call: what is called in its place.
        too_old: why the version that is installed can't serve, or None.
        capability: of the oldest device that it runs on.
        multiple: of what head dims are multiples.
    """

    def unfit(query: Tensor, key_count: Tensor | None) -> str | None:
        if not ordered and (reason := _any_order(package)) is not None:
            return reason
        if torch.cuda.get_device_capability(query.device) < capability:
            return f"{package} needs a device of capability {capability[0]}.{capability[1]} or more"
        if query.shape[-1] > 256 or query.shape[-1] % multiple:
            return (
                f"{package} takes head dims up to 256 that are multiples of {multiple}, not "
                f"{query.shape[-1]}"
            )
        return _counted(package)(key_count)

    def run(query: Tensor, key: Tensor, value: Tensor, _: None) -> Tensor:
        options: dict[str, bool] = {}
        if ordered:
            options["deterministic"] = torch.are_deterministic_algorithms_enabled()
        chosen = getattr(import_module(module), function) if call is None else call
        out: Any = chosen(query, key, value, **options)
        first: Tensor = out[0] if isinstance(out, tuple) else out  # with its log-sum-exp
        return first

    return Backend(
        run,
        package,
        "cuda",
        HALF,
        missing=lambda: _missing(module, function, package) or too_old(),
        unfit=unfit,
        composite=True,
    )


_OF_TORCH = partial(Backend, composite=True)

LIBRARIES = {
    "sdpa": _OF_TORCH(_sdpa, "torch's attention"),
    "cudnn": _OF_TORCH(
        _torchs(SDPBackend.CUDNN_ATTENTION),
        "torch's cuDNN attention",
        "cuda",
        HALF,
        unfit=_cudnn_unfit,
    ),
    "flash": _OF_TORCH(
        _torchs(SDPBackend.FLASH_ATTENTION), "torch's flash attention", unfit=_flash_unfit
    ),
    "efficient": _OF_TORCH(
        _torchs(SDPBackend.EFFICIENT_ATTENTION),
        "torch's memory-efficient attention",
        "cuda",
        UP_TO_FP32,
    ),
    "flash-attn": library("flash_attn", "flash_attn_func", "flash-attn", (8, 0), 8, ordered=True),
    # Its backward wants sm_90; forward alone would run on sm_80.
    "flash-attn-4": library(
        "flash_attn.cute",
        "flash_attn_func",
        "flash-attn-4",
        (9, 0),
        8,
        call=flash_attn_4.attention,
        too_old=lambda: flash_attn_4.too_old(),
    ),
    "xformers": library("xformers.ops", "memory_efficient_attention", "xformers", (8, 0), 8),
}
