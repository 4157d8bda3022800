"""How the files of benchmarks hang together, drawn from their sources."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def imports(sources: dict[str, str]) -> dict[str, set[str]]:
    """Modules of `sources` (source text by dotted name) that each of them imports, anywhere in it:
    within functions and under TYPE_CHECKING, too.
    """
    found: dict[str, set[str]] = {}
    for name, text in sources.items():
        names: set[str] = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{name}: a relative import"
                names.add(str(node.module))
                names.update(f"{node.module}.{alias.name}" for alias in node.names)
        found[name] = (names & set(sources)) - {name}
    return found


def order(graph: dict[str, set[str]]) -> list[str]:
    """Each after what it imports.

    Raises:
        CycleError: a circle of imports, whose files it names.
    """
    return list(TopologicalSorter(graph).static_order())


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """Of the files of benchmarks."""
    sources = {}
    for path in (ROOT / "benchmarks").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        sources[name] = path.read_text(encoding="utf-8")
    return imports(sources)


def test_no_circle(graph):
    assert len(order(graph)) == len(graph) > 50


def test_a_circle_is_found():
    one = "def late():\n    from b.two import x\n"
    with pytest.raises(CycleError, match=r"b\.one.*b\.two"):
        order(imports({"b": "", "b.one": one, "b.two": "from b import one\n"}))


def test_a_contract_knows_none_of_its_implementations(graph):
    room = "benchmarks.contenders."
    assert not {name for name in graph[f"{room}base"] if name.startswith(room)}
    assert {f"{room}{kind}" for kind in ("ours", "captured", "official", "checkout")} <= graph[
        f"{room}build"
    ]
