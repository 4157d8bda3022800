"""How the files of benchmarks hang together, drawn from their sources; and their one command."""

from __future__ import annotations

import ast
import re
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.__main__ import COMMANDS
from benchmarks.__main__ import main as command

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


def test_rooms_build_one_on_another(graph):
    """No two rooms import each other, by whatever files; nothing imports the command."""
    rooms: dict[str, set[str]] = {}
    for name, others in graph.items():
        if "." in name:
            room = name.split(".")[1]
            rooms.setdefault(room, set()).update(other.split(".")[1] for other in others)
    for room, others in rooms.items():
        others.discard(room)
    assert order(rooms)
    assert rooms["common"] == rooms["official"] == set()
    assert not {room for room, others in rooms.items() if "__main__" in others}


def test_a_prefix_is_a_folder(graph):
    """At most three files of a folder begin with the same word."""
    families = Counter(re.match(r"(.*\.)?[a-z]+", name)[0] for name in graph if name[-1] != "_")
    assert {family for family, files in families.items() if files > 3} == set()


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


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_handed_its_words(name, monkeypatch):
    module = import_module(f"benchmarks.{COMMANDS[name][0]}")
    given = []
    monkeypatch.setattr(module, "main", lambda words: given.append(words) or 3)
    assert command([name, "--size", "small"]) == 3
    assert given == [["--size", "small"]]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_tells_its_name(name, capsys):
    with pytest.raises(SystemExit) as left:
        command([name, "--help"])
    assert left.value.code == 0
    assert f"usage: python -m benchmarks {name} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ([], 2, "a command is needed"),
        (["drop_in"], 2, "did you mean drop-in?"),
        (["-h"], 0, "paper"),
    ],
)
def test_no_command(words, status, told, capsys):
    assert command(words) == status
    found = capsys.readouterr()
    assert told in found.err + found.out
    assert (found.err == "") == (status == 0)


def test_documents_and_targets_name_commands():
    """No document, target or source names a command that is none, or a module to run."""
    pattern = re.compile(
        r"-m(?: |\", \")benchmarks(?:\.(?P<module>[a-z_.]+)|(?: |\", \")(?P<name>[\w-]+(?:\.\w+)*))"
    )
    names = ["README.md", "CHANGELOG.md", "Makefile", "benchmarks/README.md", "kernels/README.md"]
    paths = [ROOT / name for name in names] + sorted((ROOT / "docs").rglob("*.md"))
    paths += sorted((ROOT / "benchmarks").rglob("*.py"))
    found = [match for path in paths for match in pattern.finditer(path.read_text("utf-8"))]
    assert len(found) > 60
    assert {m["name"] for m in found if m["name"]} <= {*COMMANDS, "COMMAND"}
    # Processes that benchmarks start for themselves, but for those whose names are values
    own = {"checkouts.child", "checkouts.forks", "measure.memory", "scale.store_rows"}
    assert {m["module"] for m in found if m["module"]} == own
