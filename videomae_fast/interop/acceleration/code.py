"""Whether a module of other code runs code that is known: told from the source of its methods.

A class name promises nothing: forks keep the names and change what they compute. What this library
computes in a module's place is what its class's methods say, so these are looked at. The digest of
a method leaves formatting, comments, docstrings and annotations aside; ``known_code.json`` holds
those of the official repositories and of transformers' releases, each with where it is from.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

# The methods that compute, by role; all other roles have `forward` alone.
_METHODS = {
    "PretrainVisionTransformerEncoder": ("forward_features", "forward"),
    "VisionTransformer": ("forward_features", "forward"),
}

# Answers already found: (role, method, function), so that a call costs look-ups only.
_ANSWERS: dict[tuple[str, str, Any], bool] = {}

_ASIDE = {"annotation", "returns", "type_comment", "type_params", "kind", "ctx"}


def why_unknown(module: nn.Module, role: str) -> str | None:
    """Why this module may compute something else than the known class `role`, or None.

    Args:
        module: forms of this package are looked through.
        role: a class's name, as in ``known_code.json``.
    """
    kind: Any = getattr(type(module), "_original", type(module))
    for method in _METHODS.get(role, ("forward",)):
        if method in module.__dict__:
            return f"its {method} was set on the instance"
        function = getattr(kind, method, None)
        if (role, method, function) not in _ANSWERS:
            if torch.compiler.is_compiling():
                return f"{kind.__name__}.{method} has changed since it was accelerated"
            _ANSWERS[role, method, function] = _is_known(role, method, function)
        if not _ANSWERS[role, method, function]:
            return f"{kind.__module__}.{kind.__name__}.{method} is other code than the known {role}"
    return None


def accept(role: str, kind: type[nn.Module]) -> None:
    """Takes a class for one that computes what the known class `role` does."""
    for method in _METHODS.get(role, ("forward",)):
        _ANSWERS[role, method, getattr(kind, method)] = True


def withdraw(role: str, kind: type[nn.Module]) -> None:
    """Takes :func:`accept` back."""
    for method in _METHODS.get(role, ("forward",)):
        _ANSWERS.pop((role, method, getattr(kind, method)), None)


def _is_known(role: str, method: str, function: Any) -> bool:
    found = digest(function)
    return found is not None and found in _known().get(f"{role}.{method}", {})


@cache
def _known() -> dict[str, dict[str, str]]:
    text = files(__package__).joinpath("known_code.json").read_text(encoding="utf-8")
    known: dict[str, dict[str, str]] = json.loads(text)
    return known


def digest(function: Any) -> str | None:
    """Of a function's source; None where there is none to read.

    Decorators of transformers and torch are looked through, since they are in the source; a wrapper
    of anyone else's is what computes, whatever it wraps.
    """
    while hasattr(function, "__wrapped__") and _is_library(function):
        function = function.__wrapped__
    if not inspect.isfunction(function):
        return None
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError):
        return None
    node = tree.body[0]
    return _digest(node) if isinstance(node, ast.FunctionDef) else None


def _is_library(function: Any) -> bool:
    module = str(getattr(function, "__globals__", {}).get("__name__", ""))
    return module.split(".")[0] in ("transformers", "torch", "functools", "contextlib")


def digests(source: str) -> Iterator[tuple[str, str]]:
    """("Class.method", digest) of every method that computes, in a file of other code."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name.startswith("forward"):
                    yield f"{node.name}.{item.name}", _digest(item)


def _digest(node: ast.FunctionDef) -> str:
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        node.body = node.body[1:]
    shape = json.dumps(_shape(node), separators=(",", ":"))
    return hashlib.sha256(shape.encode()).hexdigest()[:16]


def _shape(node: Any) -> Any:
    """The syntax as nested lists that are the same in every Python version."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if name not in _ASIDE)
        shapes = [[name, _shape(value)] for name, value in fields if value not in (None, [])]
        return [type(node).__name__, *shapes]
    return [_shape(item) for item in node] if isinstance(node, list) else repr(node)


def main(paths: list[str], told: Callable[[str], None] = print) -> None:
    """Prints what ``known_code.json`` would say of source files."""
    for path in paths:
        for name, found in digests(Path(path).read_text(encoding="utf-8")):
            told(json.dumps({name: {found: path}}))


if __name__ == "__main__":
    main(sys.argv[1:])
