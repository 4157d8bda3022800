"""The engine of training: steps, checkpoints, metrics, for any task of :mod:`videomae_fast.tasks`.

Pre-training's own names are shown here too. Torch is imported only when a name needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from videomae_fast.tasks.pretraining import PretrainResult, pretrain
    from videomae_fast.tasks.trained import load_model
    from videomae_fast.training.config import PretrainConfig
    from videomae_fast.training.recipes import RECIPES

__all__ = ["RECIPES", "PretrainConfig", "PretrainResult", "load_model", "pretrain"]

_HOME = {
    "RECIPES": "videomae_fast.training.recipes",
    "PretrainConfig": "videomae_fast.training.config",
    "PretrainResult": "videomae_fast.tasks.pretraining",
    "load_model": "videomae_fast.tasks.trained",
    "pretrain": "videomae_fast.tasks.pretraining",
}


def __getattr__(name: str) -> object:
    """So that ``pretrain --help``, which only reads the fields, need not wait for torch."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
