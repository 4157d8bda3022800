"""Every public name says what it takes, gives and raises, in Google's sections.

The reference is generated from these docstrings. A field that ``option`` declares is described by
its text, which becomes the section "Attributes".
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from functools import cache

import griffe
import pytest

from docs.site.api import PACKAGE, ROOT, defined, public_names
from docs.site.docstrings import Docstrings

NAMES = [(module, name) for module, names in public_names().items() for name in names]


@cache
def package() -> griffe.Module:
    """As the reference reads it."""
    extensions = griffe.load_extensions(Docstrings)
    found = griffe.load(PACKAGE, search_paths=[ROOT], extensions=extensions)
    assert isinstance(found, griffe.Module)
    return found


def found(module: str, name: str) -> griffe.Object:
    path = defined(package(), module, name)
    one = package()[path.removeprefix(f"{PACKAGE}.")]
    assert isinstance(one, griffe.Object), path
    return one


def faults(one: griffe.Object) -> list[str]:
    """What its docstring leaves out, or says of what is not there."""
    if not one.docstring:
        return ["it has no docstring"]
    sections = one.docstring.parse("google", warnings=False)
    described = {
        item.name
        for section in sections
        if section.kind.value in ("parameters", "attributes")
        for item in section.value
    }
    kinds = {section.kind.value for section in sections}
    taken = set(parameters(one))
    wrong = [f"nothing is said of {name}" for name in sorted(taken - described)]
    if isinstance(one, griffe.Function):
        wrong += [f"it takes no {name}" for name in sorted(described - taken)]
        if str(one.returns) != "None" and not kinds & {"returns", "yields"}:
            wrong.append("what it returns is not said")
    if raises(one) and "raises" not in kinds:
        wrong.append("what it raises is not said")
    return wrong


def parameters(one: griffe.Object) -> Iterator[str]:
    stars = (griffe.ParameterKind.var_positional, griffe.ParameterKind.var_keyword)
    for parameter in one.parameters if isinstance(one, griffe.Function | griffe.Class) else ():
        if parameter.name != "self" and parameter.kind not in stars:
            yield parameter.name


def raises(one: griffe.Object) -> bool:
    """Whether it, or what makes an object of it, has a ``raise`` of its own."""
    made_by = [one.members.get(name) for name in ("__init__", "__post_init__")]
    return any(
        isinstance(node, ast.Raise)
        for body in ([one] if isinstance(one, griffe.Function) else made_by)
        if isinstance(body, griffe.Function)
        for node in ast.walk(ast.parse(textwrap.dedent(body.source)))
    )


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_public_name_says_what_it_takes_gives_and_raises(module: str, name: str) -> None:
    assert faults(found(module, name)) == []


def test_what_is_left_out_is_found() -> None:
    source = '''
def f(a: int, b: int) -> int:
    """Adds.

    Args:
        a: one.
        c: another.
    """
    raise ValueError(a)
'''
    path = ROOT / "m.py"
    lines = griffe.LinesCollection()
    lines[path] = source.splitlines()
    one = griffe.visit("m", path, source, lines_collection=lines)["f"]
    assert faults(one) == [
        "nothing is said of b",
        "it takes no c",
        "what it returns is not said",
        "what it raises is not said",
    ]
