"""The house: which file imports which, read from the sources, and how files are named.

Every import counts, wherever it stands: at the top, in a function (made when it runs), or for type
checkers only. A function's import puts a circle off, and does not take it away.
"""

from __future__ import annotations

import ast
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "videomae_fast"

When = Literal["top", "function", "types"]
Graph = dict[str, dict[str, set[When]]]
"""For each module the modules that it imports, and when."""

# What each room may import beside itself, and what every room may. The command line may import all
# rooms, and none of them it.
ALL = {
    "arguments", "errors", "extras", "former_names", "pickles", "placed_json", "progress",
    "seeding",
}  # fmt: skip
ROOMS: dict[str, set[str]] = {
    "recipes": set(),
    "kernels": set(),
    "ops": {"kernels"},
    "masks": {"ops", "recipes"},
    "models": {"masks", "ops", "recipes"},
    "pictures": {"data", "masks", "models"},
    "data": {"ops", "recipes"},
    "interop": {"masks", "models", "ops"},
    "training": {"", "data", "interop", "models", "ops", "recipes"},  # "" for its version
    "tasks": {"data", "evaluation", "interop", "masks", "models", "recipes", "training"},
    "demo": {"data", "interop", "masks", "models", "pictures", "recipes", "tasks", "training"},
    "evaluation": {"data", "models"},
    "report": {"", "data", "tasks", "training"},  # "" for its version
}

# Names that stay where they were for one version: a face imports them for type checkers only.
FACES = {f"{PACKAGE}.training": {"tasks"}}


def modules(package: Path) -> dict[str, Path]:
    """The file of each module, by its full name; links to folders are followed."""
    found = {}
    for folder, _, names in os.walk(package, followlinks=True):
        for name in names:
            if name.endswith(".py"):
                path = Path(folder, name)
                parts = path.relative_to(package.parent).with_suffix("").parts
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def import_graph(package: Path) -> Graph:
    """The imports between the modules of a package.

    That a module's packages are imported with it is left out: their faces import lazily.
    """
    known = modules(package)
    graph: Graph = {name: defaultdict(set) for name in known}
    for name, path in known.items():
        for target, when in _imports(ast.parse(path.read_text(encoding="utf-8")), "top", known):
            if target != name:
                graph[name][target].add(when)
    return graph


def _imports(node: ast.AST, when: When, known: Mapping[str, Path]) -> Iterator[tuple[str, When]]:
    for child in ast.iter_child_nodes(node):
        inner = when
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inner = "function"
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            inner = "types"
        elif isinstance(child, ast.Import):
            yield from ((a.name, when) for a in child.names if a.name in known)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "an import relative to its own file"
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                if full in known or child.module in known:
                    yield (full if full in known else str(child.module)), when
        yield from _imports(child, inner, known)


def circles(graph: Graph) -> list[list[str]]:
    """Groups of modules that all reach one another."""
    reached = {name: _reach(graph, name) for name in graph}
    groups = {
        tuple(sorted(other for other in reached[name] if name in reached[other])) for name in graph
    }
    return [list(group) for group in sorted(groups) if group]


def _reach(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        for target in graph[todo.pop()]:
            if target not in seen:
                seen.add(target)
                todo.append(target)
    return seen


def room(module: str) -> str:
    """The part of the package that a module lies in; "" is the package's own face."""
    return module.split(".")[1] if "." in module else ""


def families(names: Iterable[str]) -> dict[str, list[str]]:
    """More than three files of one folder whose names start alike, by what they start with."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        stem = name.partition(".")[0].removeprefix("test_").strip("_")
        words = re.split("[_-]", stem)
        for count in range(1, len(words) + 1):
            found["_".join(words[:count])].append(name)
    return {prefix: alike for prefix, alike in found.items() if prefix and len(alike) > 3}


def folders() -> dict[str, list[str]]:
    """The names of the files in each folder of the tree, but for what was measured or built.

    Recipes are named as users type them.
    """
    found = {}
    for top in (PACKAGE, "kernels", "csrc", "benchmarks", "tests", "docs"):
        for folder, below, names in os.walk(ROOT / top):
            below[:] = [one for one in below if one not in ("results", "golden", "__pycache__")]
            found[str(Path(folder).relative_to(ROOT))] = [
                one for one in names if not one.endswith(".toml")
            ]
    return found


@pytest.fixture(scope="module")
def graph() -> Graph:
    return import_graph(ROOT / PACKAGE)


def test_no_circle_of_imports(graph: Graph) -> None:
    assert circles(graph) == []


@pytest.mark.parametrize("name", sorted(ROOMS))
def test_a_room_imports_only_what_lies_below_it(name: str, graph: Graph) -> None:
    wrong = [
        f"{module} -> {target} ({', '.join(sorted(when))})"
        for module, targets in graph.items()
        for target, when in targets.items()
        if room(module) == name and room(target) not in ROOMS[name] | ALL | {name}
        if not (when == {"types"} and room(target) in FACES.get(module, set()))
    ]
    assert wrong == []
    assert any(room(module) == name for module in graph)


def test_every_room_is_known(graph: Graph) -> None:
    assert {room(module) for module in graph if module.count(".") > 1} == {*ROOMS, "cli"}


def test_only_the_program_imports_the_command_line(graph: Graph) -> None:
    users = {m for m, targets in graph.items() if any(room(t) == "cli" for t in targets)}
    assert {m for m in users if room(m) != "cli"} == {f"{PACKAGE}.__main__"}


def test_a_prefix_is_a_folder() -> None:
    found = {folder: families(names) for folder, names in folders().items()}
    assert {folder: alike for folder, alike in found.items() if alike} == {}


def test_tests_share_by_their_support_and_not_by_each_other() -> None:
    """A module of tests, or a conftest, is imported by pytest alone; its own name is no import."""
    wrong = []
    for path in (ROOT / "tests").rglob("*.py"):
        own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for name in re.findall(
            r"^\s*(?:from|import) (tests\.[\w.]+)", path.read_text("utf-8"), re.M
        ):
            if re.search(r"\.(test_\w+|conftest)$", name) and name != own:
                wrong.append(f"{own} imports {name}")
    assert sorted(wrong) == []


def test_the_graph_sees_every_kind_of_import(tmp_path: Path) -> None:
    (tmp_path / "house" / "room").mkdir(parents=True)
    sources = {
        "__init__.py": "",
        "a.py": "from house import b\nimport os",
        "b.py": "def f():\n    from house.room.c import name",
        "room/__init__.py": "",
        "room/c.py": "if TYPE_CHECKING:\n    import house.a\nfrom house.room import d",
        "room/d.py": "import json",
    }
    for name, text in sources.items():
        (tmp_path / "house" / name).write_text(text)
    graph = import_graph(tmp_path / "house")
    assert {name: dict(targets) for name, targets in graph.items() if targets} == {
        "house.a": {"house.b": {"top"}},
        "house.b": {"house.room.c": {"function"}},
        "house.room.c": {"house.a": {"types"}, "house.room.d": {"top"}},
    }
    assert circles(graph) == [["house.a", "house.b", "house.room.c"]]
    assert room("house.room.c") == "room"
    assert room("house") == ""


def test_families_are_found_by_whole_words() -> None:
    names = ["cli.py", "cli_a.py", "cli_b.py", "climb.py", "test_x_y_1.py", "x_y_2.py", "x_y_3.md"]
    assert families(names) == {}
    assert families([*names, "_cli_c.py", "x-y-4.py"]) == {
        "cli": ["_cli_c.py", "cli.py", "cli_a.py", "cli_b.py"],
        "x": ["test_x_y_1.py", "x-y-4.py", "x_y_2.py", "x_y_3.md"],
        "x_y": ["test_x_y_1.py", "x-y-4.py", "x_y_2.py", "x_y_3.md"],
    }
