"""Cheap intermediate values that backward makes anew instead of keeping them.

A matmul keeps its input for the gradient of its weight. Where that input is one pass over something
that is kept anyway (GELU over its own input, LayerNorm over the stream), making it again costs that
pass and saves the memory.

Eager code says so for each such value (:func:`recomputing`). ``torch.compile`` is told by op: a
block keeps what matmuls and attention give and makes all else again (:func:`keeping_matmuls`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

_KEPT: Final = ("mm", "addmm", "bmm", "baddbmm", "linear", "gelu_mlp", "attention")
"""Ops whose results are kept: named so, or ``..._attention``, whoever declares them."""


def recomputing(value: Tensor, again: Callable[[], Tensor]) -> AbstractContextManager[object]:
    """While entered, autograd keeps how to make `value` in its place.

    What is kept besides, and other dtypes of it, is kept as ever. Under ``torch.compile`` (see
    :func:`keeping_matmuls`) and without gradients nothing is done.

    Args:
        value: contiguous.
        again: makes the very same values in the same layout; called in the backward pass.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return nullcontext()
    return _while_kept(_Packer(value, again))


def keeping_matmuls(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Calls a function of which backward keeps the results of matmuls and attention alone.

    The rest it makes again, from the arguments and from these; the same values.

    Args:
        function: draws no random numbers.
        args, options: its own.
    """
    return checkpoint(
        function,
        *args,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=_contexts,
        **options,
    )


def _contexts() -> Any:
    return create_selective_checkpoint_contexts(_policy)  # type: ignore[no-untyped-call]


def _policy(context: Any, op: Any, *args: Any, **options: Any) -> CheckpointPolicy:
    name = op.name().split("::")[1].partition(".")[0]
    kept = name in _KEPT or name.endswith("_attention") or "_attention_" in name
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


@contextmanager
def _while_kept(packer: _Packer) -> Iterator[None]:
    try:
        with torch.autograd.graph.saved_tensors_hooks(packer, _unpacked):
            yield
    finally:
        packer.value = None  # autograd holds the packer for as long as what it packed


class _Packer:
    """Recognises the value by its storage, while it has it."""

    def __init__(self, value: Tensor, again: Callable[[], Tensor]) -> None:
        self.value: Tensor | None = value
        self.again = again

    def __call__(self, kept: Tensor) -> Tensor | _Recipe:
        value = self.value
        if value is None:
            return kept
        same = kept.untyped_storage()._cdata == value.untyped_storage()._cdata
        if same and kept.dtype == value.dtype and kept.numel() == value.numel():
            return _Recipe(self.again, tuple(kept.shape), kept.stride(), int(kept.storage_offset()))
        return kept


class _Recipe:
    """How a kept tensor is made again, and what view of it was kept."""

    def __init__(
        self, again: Callable[[], Tensor], size: tuple[int, ...], stride: tuple[int, ...], at: int
    ) -> None:
        self.again, self.size, self.stride, self.at = again, size, stride, at


@torch.no_grad()
def _unpacked(kept: Tensor | _Recipe) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    return torch.as_strided(kept.again(), kept.size, kept.stride, kept.at)
