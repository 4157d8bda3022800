"""Reference pages of the Python interface: a page per public module, from its docstrings.

Which names are public stands in tests/packaging/public_api.txt, which a test holds.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Final

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).resolve().parents[2]
PUBLIC: Final = ROOT / "tests" / "packaging" / "public_api.txt"
PACKAGE: Final = "videomae_fast"


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    package = griffe.load(PACKAGE, search_paths=[ROOT])
    assert isinstance(package, griffe.Module)
    described: dict[str, str] = {}
    for module, names in public_names().items():
        content = page(package, module, names, described)
        files.append(File.generated(config, place(module), content=content))
    return files


def place(module: str) -> str:
    """Where the page of a public module lies in the site."""
    return f"reference/api/{module.removeprefix(PACKAGE).removeprefix('.') or PACKAGE}.md"


def public_names() -> dict[str, list[str]]:
    """The public names of each public module, in the order of the file."""
    found = defaultdict(list)
    for line in PUBLIC.read_text(encoding="utf-8").splitlines():
        kind, _, rest = line.partition(" ")
        if kind != "command":
            module, _, name = rest.partition("(")[0].rpartition(".")
            found[module].append(name)
    return dict(sorted(found.items()))


def page(package: griffe.Module, module: str, names: list[str], described: dict[str, str]) -> str:
    """Markdown for mkdocstrings: the module's own docstring, then each name under its own heading.

    Args:
        package: as griffe read it.
        module: the public module.
        names: what it shows.
        described: where names that several modules show were described first, by the paths of their
            definitions; those of this page are added.
    """
    face = package if module == PACKAGE else package[module.removeprefix(f"{PACKAGE}.")]
    parts = [f"# {module}", face.docstring.value if face.docstring else ""]
    for name in names:
        path, public = defined(package, module, name), f"{module}.{name}"
        if path in described:
            parts.append(f"## `{public}`\n\nIs [`{described[path]}`][{path}].")
        else:
            described[path] = public
            parts.append(_directive(path, public, name))
    return "\n\n".join(parts) + "\n"


def defined(package: griffe.Module, module: str, name: str) -> str:
    """The full path of a public name where it is defined.

    A function may have the name of the file that it stands in, which lies in the same package: what
    the package imports counts. A name that only stands for another is that one.
    """
    path = f"{module}.{name}"
    while True:
        home, _, leaf = path.rpartition(".")
        face = package if home == PACKAGE else package[home.removeprefix(f"{PACKAGE}.")]
        if leaf in face.imports:
            path = face.imports[leaf]
            continue
        one = face.members[leaf]
        if not isinstance(one, griffe.Attribute) or not isinstance(one.value, griffe.ExprName):
            return path
        path = one.value.canonical_path


def _directive(path: str, public: str, name: str) -> str:
    return "\n".join(
        [
            f"::: {path}",
            "    options:",
            f"      heading: {json.dumps(public)}",
            f"      toc_label: {json.dumps(name)}",
        ]
    )
