"""The package's recipes as functions, as they were before they became files: for one version."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import fields
from functools import partial

from videomae_fast.recipes import schema
from videomae_fast.recipes.catalogue import names
from videomae_fast.recipes.load import load
from videomae_fast.training.config import PretrainConfig


def _load(name: str) -> PretrainConfig:
    warnings.warn(
        f'RECIPES["{name}"]() is now videomae_fast.recipes.load(PretrainConfig, "{name}")',
        DeprecationWarning,
        stacklevel=2,
    )
    found = load(schema.PretrainConfig, name)
    return PretrainConfig(**{one.name: getattr(found, one.name) for one in fields(found)})


RECIPES: dict[str, Callable[[], PretrainConfig]] = {
    name: partial(_load, name) for name in names(schema.PretrainConfig.task)
}
"""Former way to recipes, for one version: :func:`videomae_fast.recipes.load` takes its place."""
