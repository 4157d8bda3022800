"""An op's parameters are listed twice: by its contract and by its reference.

Launchers, the library's wrappers and whatever else looks at arguments reads them by name.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

import pytest
import torch

from tests.support.processes import ROOT
from videomae_fast.ops.registry import REGISTRY

SOURCES = [*(ROOT / "videomae_fast").rglob("*.py"), *(ROOT / "kernels").glob("*.py")]
LEAST = 3  # names: fewer may come together by chance
Names = tuple[str, ...]


def parameters() -> dict[str, Names]:
    """Of each op's reference, or of what is registered in its place."""
    schemas = {op: getattr(torch.ops.videomae_fast, op).default._schema for op in REGISTRY}
    return {op: tuple(one.name for one in schema.arguments[:-1]) for op, schema in schemas.items()}


def signatures(source: str) -> Iterator[tuple[str, Names]]:
    """Name and parameters of every function but Triton's kernels, which take pointers."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            name = getattr(node, "name", "lambda")
            if "triton.jit" not in map(ast.unparse, getattr(node, "decorator_list", ())):
                given = node.args
                named = (*given.posonlyargs, *given.args, *given.kwonlyargs)
                yield name, tuple(one.arg for one in named)


def listed(function: str, its: Names, known: Mapping[str, Names]) -> Names | None:
    """The list that a function has: a contract its op's, others the longest that stands there."""
    if function in known and "impl" in its:
        return known[function]

    def stands(names: Names) -> bool:
        last = len(its) - len(names)
        return any(its[i : i + len(names)] == names for i in range(last + 1))

    return max(filter(stands, known.values()), key=len, default=None)


def restated(sources: Mapping[str, str], known: Mapping[str, Names]) -> list[str]:
    """Lists that stand more than twice for an op, and where."""
    places: dict[Names, list[str]] = defaultdict(list)
    for path, source in sources.items():
        for function, its in signatures(source):
            names = listed(function, its, known)
            if names is not None and len(names) >= LEAST:
                places[names].append(f"{path}: {function}")
    ops = Counter(known.values())
    return [
        f"({', '.join(names)}): {', '.join(found)}"
        for names, found in places.items()
        if len(found) > 2 * ops[names]
    ]


def test_no_signature_stands_more_than_twice() -> None:
    sources = {str(path.relative_to(ROOT)): path.read_text() for path in SOURCES}
    found = restated(sources, parameters())
    assert not found, "\n".join(found)


def test_one_signature_more_is_found() -> None:
    known = {"norm": ("x", "bias", "eps"), "norm_backward": ("grad", "x", "bias", "eps")}
    contract = "def norm(x, *, bias, eps=1e-6, impl='auto'): ..."
    reference = "def reference(x, bias, eps): ...\ndef backward(grad, x, bias, eps): ..."
    assert not restated({"ops": contract, "more": reference}, known)
    for name, third in (
        ("launch", "def launch(x, bias, eps, out): ..."),
        ("lambda", "run = lambda x, bias, eps: x"),
    ):
        found = restated({"ops": contract, "more": reference, "third": third}, known)
        assert found == [f"(x, bias, eps): ops: norm, more: reference, third: {name}"]


def readers() -> list[object]:
    """Functions that get an op's arguments in one value, by file."""
    folders = (ROOT / "kernels", ROOT / "videomae_fast" / "ops", ROOT / "videomae_fast/ops/_native")
    return [
        pytest.param(node, id=f"{path.stem}-{node.name}")
        for folder in folders
        for path in sorted(folder.glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        and any(
            isinstance(one.annotation, ast.Name) and one.annotation.id == "Arguments"
            for one in node.args.args
        )
    ]


@pytest.mark.parametrize("function", readers())
def test_what_is_read_by_name_is_there(function: ast.FunctionDef) -> None:
    """What a type checker would say of a list of parameters: some op has all these arguments."""
    read = {
        node.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "args"
    }
    # Of the two that write into memory of the caller, and of namedtuples
    ours = {"out", "_make"}
    assert any(read - ours <= {*names} for names in parameters().values()), sorted(read)
