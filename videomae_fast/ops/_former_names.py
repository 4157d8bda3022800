"""The former names of modules that are called like their ops now, for one version."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from types import ModuleType

FORMER = {
    "gelu": "bias_gelu",
    "layer_norm": "add_layer_norm",
    "pixel_gradient": "pixel_mse_with_gradient",
    "pixel_loss": "pixel_mse",
    "tokens": "token_gather",
}


class _Former(ModuleType):
    """Hands out what the renamed module has, with a warning."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # asked by the import system and by tools, not by users
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        package, _, former = self.__name__.rpartition(".")
        now = f"{package}.{FORMER[former]}"
        warnings.warn(
            f"{self.__name__} is now {now}; the next version drops the former name",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(import_module(now), name)


def keep(package: str) -> None:
    """Lets the former names of a package's modules be imported."""
    for former in FORMER:
        sys.modules[f"{package}.{former}"] = _Former(f"{package}.{former}")
