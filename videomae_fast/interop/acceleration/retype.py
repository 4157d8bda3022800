"""Giving a module another forward in place: its class becomes a subclass of the one it has.

Parameters, buffers, hooks, names and the state dict stay what they are, `isinstance` still holds,
and the way back is to assign the old class. The new class carries the old one's name, since other
code writes it into files (Hugging Face's config) and looks things up by it.
"""

from __future__ import annotations

import functools
import types
from typing import Any

from torch import nn

_MADE: dict[tuple[type[nn.Module], type[nn.Module]], type[nn.Module]] = {}


def subclass(form: type[nn.Module], original: type[nn.Module]) -> type[nn.Module]:
    """The class of modules of class `original` with the methods of `form` before their own."""
    if (form, original) not in _MADE:
        _MADE[form, original] = _subclass(form, original)
    return _MADE[form, original]


def _subclass(form: type[nn.Module], original: type[nn.Module]) -> type[nn.Module]:
    names: dict[str, Any] = {
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        "__reduce_ex__": _reduce,
        "_form": form,
        "_original": original,
    }
    for name, method in vars(form).items():
        if name.startswith("forward") and isinstance(method, types.FunctionType):
            names[name] = _with_signature(method, getattr(original, name))
    return type(original.__name__, (form, original), names)


def _with_signature(method: types.FunctionType, original: Any) -> types.FunctionType:
    """The method, which says of itself what the original one says: others look at signatures."""
    twin = types.FunctionType(
        method.__code__,
        method.__globals__,
        method.__name__,
        method.__defaults__,
        method.__closure__,
    )
    twin.__kwdefaults__ = method.__kwdefaults__
    functools.update_wrapper(twin, original)
    return twin


def retype(module: nn.Module, form: type[nn.Module]) -> None:
    """Puts the methods of `form` before the module's own."""
    module.__class__ = subclass(form, type(module))


def original_class(module: nn.Module) -> type[nn.Module] | None:
    """The class that a module had before :func:`retype`, or None."""
    found: type[nn.Module] | None = vars(type(module)).get("_original")
    return found


def is_form(module: nn.Module) -> bool:
    """Whether a module's class, or one that it was made of since, is a form's."""
    return hasattr(type(module), "_form")


def _reduce(module: Any, protocol: Any) -> tuple[Any, ...]:
    # The class can't be found by its name, which is the original's
    return _made, (type(module)._form, type(module)._original), vars(module)


def _made(form: type[nn.Module], original: type[nn.Module]) -> nn.Module:
    kind = subclass(form, original)
    return kind.__new__(kind)
