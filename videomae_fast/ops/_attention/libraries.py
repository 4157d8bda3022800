"""Attention of torch and of other libraries, each behind a predicate that says why it can't run.

They bring their own backward. None is imported before it is asked for. torch's own attention is
there as a whole ("sdpa", which picks one of its backends) and by backend.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from videomae_fast.ops._attention import flash_attn_4
from videomae_fast.ops._dispatch import Backend, WhyNot, always


def key_mask(key: Tensor, key_count: Tensor) -> Tensor:
    """bool [B, 1, 1, Nk], True where a key takes part."""
    position = torch.arange(key.shape[1], device=key.device)
    return (position < key_count[:, None])[:, None, None, :]


def _sdpa(query: Tensor, key: Tensor, value: Tensor, key_count: Tensor | None) -> Tensor:
    mask = None if key_count is None else key_mask(key, key_count)
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def _torchs(backend: SDPBackend) -> Callable[..., Tensor]:
    """torch's attention by one of its backends alone, forward and backward."""

    def run(query: Tensor, key: Tensor, value: Tensor, key_count: Tensor | None) -> Tensor:
        with sdpa_kernel(backend):
            return _sdpa(query, key, value, key_count)

    return run


def _torchs_why_not(
    name: str, *dtypes: torch.dtype, counted: bool = False, cpu: bool = False
) -> WhyNot:
    """What is known to stop one of torch's backends; the rest torch says itself, as an error."""

    def why_not(query: Tensor, key: Tensor, value: Tensor, key_count: Tensor | None) -> str | None:
        if query.device.type not in ("cuda", "cpu") or (query.device.type == "cpu" and not cpu):
            return f"torch's {name} attention needs CUDA tensors, not {query.device}"
        if name == "cuDNN" and (reason := _any_order("cuDNN")) is not None:
            return reason
        if query.device.type == "cuda" and query.dtype not in dtypes:
            told = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
            return f"torch's {name} attention takes {told}, not {query.dtype}"
        if key_count is not None and not counted:
            return f"torch's {name} attention serves here without key_count only"
        return None

    return why_not


def _any_order(backend: str) -> str | None:
    """Why a backend whose backward adds up in any order can't serve, or None."""
    if torch.are_deterministic_algorithms_enabled():
        return f"{backend}'s gradients are added up in any order, and torch is to be deterministic"
    return None


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


def _why_not(
    module: str, function: str, package: str, capability: tuple[int, int], multiple: int
) -> Callable[..., str | None]:
    def why_not(query: Tensor, key: Tensor, value: Tensor, key_count: Tensor | None) -> str | None:
        reason = _missing(module, function, package)
        if reason is None and package == "flash-attn-4":
            reason = flash_attn_4.too_old()
        if reason is None and package != "flash-attn":
            reason = _any_order(package)
        if reason is not None:
            return reason
        if query.device.type != "cuda":
            return f"{package} needs CUDA tensors, not {query.device}"
        if torch.cuda.get_device_capability(query.device) < capability:
            return f"{package} needs a device of capability {capability[0]}.{capability[1]} or more"
        if query.dtype not in (torch.bfloat16, torch.float16):
            return f"{package} takes bf16 and fp16, not {query.dtype}"
        if query.shape[-1] > 256 or query.shape[-1] % multiple:
            return (
                f"{package} takes head dims up to 256 that are multiples of {multiple}, not "
                f"{query.shape[-1]}"
            )
        if key_count is not None:
            return f"{package} serves here without key_count only"
        return None

    return why_not


def _flash_attn(query: Tensor, key: Tensor, value: Tensor, key_count: Tensor | None) -> Tensor:
    out: Tensor = import_module("flash_attn").flash_attn_func(
        query, key, value, deterministic=torch.are_deterministic_algorithms_enabled()
    )
    return out


def _flash_attn_4(query: Tensor, key: Tensor, value: Tensor, key_count: Tensor | None) -> Tensor:
    return flash_attn_4.attention(query, key, value)


def _xformers(query: Tensor, key: Tensor, value: Tensor, key_count: Tensor | None) -> Tensor:
    out: Tensor = import_module("xformers.ops").memory_efficient_attention(query, key, value)
    return out


LIBRARIES = {
    "sdpa": Backend(_sdpa, always),
    "cudnn": Backend(
        _torchs(SDPBackend.CUDNN_ATTENTION),
        _torchs_why_not("cuDNN", torch.bfloat16, torch.float16),
    ),
    "flash": Backend(
        _torchs(SDPBackend.FLASH_ATTENTION),
        _torchs_why_not("flash", torch.bfloat16, torch.float16, cpu=True),
    ),
    "efficient": Backend(
        _torchs(SDPBackend.EFFICIENT_ATTENTION),
        _torchs_why_not(
            "memory-efficient", torch.bfloat16, torch.float16, torch.float32, counted=True
        ),
    ),
    "flash-attn": Backend(
        _flash_attn, _why_not("flash_attn", "flash_attn_func", "flash-attn", (8, 0), 8)
    ),
    # Its backward wants sm_90; forward alone would run on sm_80.
    "flash-attn-4": Backend(
        _flash_attn_4, _why_not("flash_attn.cute", "flash_attn_func", "flash-attn-4", (9, 0), 8)
    ),
    "xformers": Backend(
        _xformers, _why_not("xformers.ops", "memory_efficient_attention", "xformers", (8, 0), 8)
    ),
}
