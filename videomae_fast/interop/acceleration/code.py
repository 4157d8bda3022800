"""Whether a module of other code runs code that is known: told from the source of its methods.

A class name promises nothing: forks keep the names and change what they compute. What this library
computes in a module's place is what its class's methods say, so these are looked at, with the
functions of the same file that they call. The digest of a source leaves formatting, comments,
docstrings and annotations aside; ``known_code.json`` holds those of the official repositories and
of transformers' releases, each with where it is from.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import nn

# The methods that compute, by role; all other roles have `forward` alone.
_METHODS = {
    "PretrainVisionTransformerEncoder": ("forward_features", "forward"),
    "VisionTransformer": ("forward_features", "forward"),
}

# Roles that a class of this name may have, where they are not the name itself
NAMES = {"Block": ("Block", "CheckpointedBlock", "AdapterBlock")}


class _Answer(NamedTuple):
    """Whether a method's code is known, and what it read when that was found.

    Attributes:
        known: whether it is.
        code: what the function consisted of.
        names: the globals of its file, and each name in them that it reads with its value then.
    """

    known: bool
    code: Any
    names: tuple[tuple[dict[str, Any], str, Any], ...]


# By (role, method, function), so that a call costs look-ups only
_ANSWERS: dict[tuple[str, str, Any], _Answer] = {}

_ASIDE = {"annotation", "returns", "type_comment", "type_params", "kind", "ctx"}


def why_unknown(module: Any, role: str) -> str | None:
    """Why this module may compute something else than the known class `role`, or None.

    Args:
        module: anything that stands where the known code calls a module; forms of this package
            are looked through.
        role: a class's name, as in ``known_code.json``.
    """
    if not isinstance(module, nn.Module):
        return f"it is a {type(module).__name__}, no module"
    kind: Any = getattr(type(module), "_original", type(module))
    compiling = torch.compiler.is_compiling()
    if not compiling and not _is_usual_call(kind):
        return f"{kind.__name__} has its own __call__"
    for method in _METHODS.get(role, ("forward",)):
        if method in module.__dict__:
            return f"its {method} was set on the instance"
        function = getattr(kind, method, None)
        answer = _ANSWERS.get((role, method, function))
        if answer is None:
            if compiling:
                return f"{kind.__name__}.{method} has changed since it was accelerated"
            answer = _ANSWERS[role, method, function] = _answer(role, method, function)
        if not answer.known:
            return f"{kind.__module__}.{kind.__name__}.{method} is other code than the known {role}"
        if compiling:
            continue
        if getattr(function, "__code__", None) is not answer.code:
            return f"{kind.__name__}.{method} consists of other code since"
        for names, name, value in answer.names:
            if names.get(name) is not value:
                return f"{name}, which {kind.__name__}.{method} reads, was replaced"
    return None


def _is_usual_call(kind: Any) -> bool:
    """Whether modules of a class are called as others are; transformers' layers have their own."""
    call = kind.__call__
    return call is nn.Module.__call__ or str(call.__module__).startswith("transformers.")


def accept(role: str, kind: type[nn.Module]) -> None:
    """Takes a class for one that computes what the known class `role` does."""
    for method in _METHODS.get(role, ("forward",)):
        function = getattr(kind, method)
        _ANSWERS[role, method, function] = _Answer(
            True, getattr(function, "__code__", None), _names(_unwrapped(function))
        )


def withdraw(role: str, kind: type[nn.Module]) -> None:
    """Takes :func:`accept` back."""
    for method in _METHODS.get(role, ("forward",)):
        _ANSWERS.pop((role, method, getattr(kind, method)), None)


def _answer(role: str, method: str, function: Any) -> _Answer:
    code = getattr(function, "__code__", None)
    function = _unwrapped(function)
    found = digest(function)
    if found is None or found not in known_code().get(f"{role}.{method}", {}):
        return _Answer(False, code, ())
    return _Answer(True, code, _names(function))


def _names(function: Any) -> tuple[tuple[dict[str, Any], str, Any], ...]:
    if not isinstance(function, FunctionType):
        return ()
    names = function.__globals__
    read = [name for name in function.__code__.co_names if name in names]
    called = (names[name] for name in read if _is_of_file(names[name], function))
    of_called = (entry for one in called for entry in _names(one))
    return (*((names, name, names[name]) for name in read), *of_called)


def _is_of_file(value: Any, function: FunctionType) -> bool:
    same = isinstance(value, FunctionType) and value.__module__ == function.__module__
    return same and value is not function


@cache
def known_code() -> dict[str, dict[str, str]]:
    """ "Class.method" to the digests of its known sources, each with where it is from."""
    text = files(__package__).joinpath("known_code.json").read_text(encoding="utf-8")
    known: dict[str, dict[str, str]] = json.loads(text)
    return known


def digest(function: Any) -> str | None:
    """Of a function's source, and of those of its file that it calls; None: it can't be read."""
    node = _node(function)
    if node is None:
        return None
    same_file = {
        name: found
        for name, value in function.__globals__.items()
        if _is_of_file(value, function)
        if (found := _node(value) if name in _read(node) else None) is not None
    }
    return _digest(node, same_file)


def _unwrapped(function: Any) -> Any:
    """What decorators of transformers and torch wrap, which the source shows.

    A wrapper of anyone else's is what computes, whatever it wraps.
    """
    while hasattr(function, "__wrapped__") and _is_library(function):
        function = function.__wrapped__
    return function


def _is_library(function: Any) -> bool:
    module = str(getattr(function, "__globals__", {}).get("__name__", ""))
    return module.split(".")[0] in ("transformers", "torch", "functools", "contextlib")


def _node(function: Any) -> ast.FunctionDef | None:
    if not isinstance(function, FunctionType):
        return None
    try:
        node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, SyntaxError, TypeError):
        return None
    return node if isinstance(node, ast.FunctionDef) else None


def digests(source: str) -> Iterator[tuple[str, str]]:
    """("Class.method", digest) of every method that computes, in a file of other code."""
    body = ast.parse(source).body
    functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    for node in body:
        if isinstance(node, ast.ClassDef):
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name.startswith("forward"):
                    yield f"{node.name}.{item.name}", _digest(item, functions)


def _read(node: ast.FunctionDef) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _digest(node: ast.FunctionDef, same_file: Mapping[str, ast.FunctionDef]) -> str:
    """
    Args:
        same_file: other functions of the file, by name; those count that `node` reads.
    """
    called = [same_file[name] for name in sorted(_read(node) & set(same_file))]
    shape = json.dumps([_shape(_bare(one)) for one in (node, *called)], separators=(",", ":"))
    return hashlib.sha256(shape.encode()).hexdigest()[:16]


def _bare(node: ast.FunctionDef) -> ast.FunctionDef:
    """Without its docstring."""
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        node.body = node.body[1:]
    return node


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
