"""Pre-training: recipes, the loop, checkpoints. Torch is imported only when a name needs it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from videomae_fast.training.config import PretrainConfig
    from videomae_fast.training.loop import PretrainResult, pretrain
    from videomae_fast.training.recipes import RECIPES
    from videomae_fast.training.trained import load_model

__all__ = ["RECIPES", "PretrainConfig", "PretrainResult", "load_model", "pretrain"]

_HOME = {
    "RECIPES": "videomae_fast.training.recipes",
    "PretrainConfig": "videomae_fast.training.config",
    "PretrainResult": "videomae_fast.training.loop",
    "load_model": "videomae_fast.training.trained",
    "pretrain": "videomae_fast.training.loop",
}


def __getattr__(name: str) -> object:
    """So that ``pretrain --help``, which only reads the fields, need not wait for torch."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
