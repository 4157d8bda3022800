"""Former names of what was renamed, for one version."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module


def former_names(module: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """A module's ``__getattr__``, which hands out renamed things by their former names.

    Args:
        module: the module's ``__name__``.
        names: the name that each former name has now, in the same module.

    Returns:
        A function from name to object. It raises AttributeError for other names, and gives a
        DeprecationWarning for these.
    """

    def find(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(
            f"{module}.{name} is now {names[name]}; the next version drops the former name",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(import_module(module), names[name])

    return find
