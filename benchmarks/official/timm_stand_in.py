"""The four functions of timm that the official model files import, while they are imported.

timm itself is not wanted: it would be a dependency for a name. :func:`standing_in` puts modules of
timm's names in place and takes them away again; whoever uses it says so. An installed timm is not
used, so that a checkout is the same computation everywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor


def drop_path(x: Tensor, drop_prob: float = 0.0, training: bool = False) -> Tensor:
    """Zeroes whole clips of a residual branch [B, ...] and scales the others up.

    Draws what timm 0.4.12 draws, the version that the official code asks for.
    """
    if not drop_prob or not training:
        return x
    kept = 1 - drop_prob
    drawn = torch.rand(_one_per_clip(x), dtype=x.dtype, device=x.device)
    return x.div(kept) * drawn.add_(kept).floor_()


def drop_path_since_0_5(x: Tensor, drop_prob: float = 0.0, training: bool = False) -> Tensor:
    """The same with the draws of later versions of timm."""
    if not drop_prob or not training:
        return x
    kept = 1 - drop_prob
    return x * x.new_empty(_one_per_clip(x)).bernoulli_(kept).div_(kept)


def _one_per_clip(x: Tensor) -> tuple[int, ...]:
    return (len(x),) + (1,) * (x.ndim - 1)


def to_2tuple(value: Any) -> tuple[Any, ...]:
    """A number twice; what is a pair already, as it is."""
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0
) -> Tensor:
    """torch's own, in place."""
    return torch.nn.init.trunc_normal_(tensor, mean, std, a, b)


def register_model(function: Callable[..., Any]) -> Callable[..., Any]:
    """timm keeps a list of models by name; nothing here asks for one by name."""
    return function


CONTENT: dict[str, tuple[Callable[..., Any], ...]] = {
    "timm": (),
    "timm.models": (),
    "timm.models.layers": (drop_path, to_2tuple, trunc_normal_),
    "timm.models.registry": (register_model,),
}


@contextmanager
def standing_in() -> Iterator[None]:
    """``from timm.models.layers import drop_path`` and the like find these functions."""
    names = [name for name in sys.modules if name.split(".")[0] == "timm"]
    before = {name: sys.modules.pop(name) for name in names}
    for name, functions in CONTENT.items():
        module = ModuleType(name, "A stand-in of videomae-fast's benchmarks.")
        module.__path__ = []
        for function in functions:
            setattr(module, function.__name__, function)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in CONTENT:
            sys.modules.pop(name, None)
        sys.modules.update(before)
