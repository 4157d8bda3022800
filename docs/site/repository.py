"""The site's pages and files that lie outside of docs/, and links to them.

Documents link to each other, to records and to sources by relative paths, which a code host shows
as they are. The site has docs/ only: what is linked from it or named in ``PAGES`` comes along here,
Markdown as a page and everything else as a file, and links are turned to where it lies in the site.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parents[2]

PAGES: Final = {
    "README.md": "project/overview.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "SECURITY.md": "project/security.md",
    "benchmarks/README.md": "project/benchmarks.md",
}
"""Pages that the navigation has, by their paths in the repository."""

# What a browser shows; other files get ".txt" appended, else it would store them.
_SHOWN: Final = (".json", ".png", ".svg", ".txt", ".csv")
_LINK: Final = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)")
_CODE: Final = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)

_places: dict[str, str] = {}
"""Where each path of the repository lies in the site; filled by on_files."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds what PAGES name, and whatever is linked, from pages that are added too."""
    _places.clear()
    for file in files:
        if file.generated_by is None:
            _places[f"docs/{file.src_uri}"] = file.src_uri
    todo = [path for path, place in _places.items() if place.endswith(".md")]
    for path, place in PAGES.items():
        files.append(_added(config, path, place))
        todo.append(path)
    while todo:
        path = todo.pop()
        for target in targets(path, (ROOT / path).read_text(encoding="utf-8")):
            todo += _take_along(files, config, target)
    return files


def _take_along(files: Files, config: MkDocsConfig, target: str) -> list[str]:
    """Adds what a link leads to, and returns the documents among it."""
    found = ROOT / target
    if target in _places or not found.exists():  # MkDocs names a link that leads nowhere
        return []
    if found.is_dir():
        readme = f"{target}/README.md"
        if not (ROOT / readme).is_file():
            files.append(_listing(config, target))
            return []
        added = _take_along(files, config, readme)
        _places[target] = _places[readme]
        return added
    shown = target if target.endswith((*_SHOWN, ".md")) else f"{target}.txt"
    files.append(_added(config, target, f"files/{shown}"))
    return [target] if target.endswith(".md") else []


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links that leave docs/ to where their targets lie in the site."""
    path = next((path for path, place in _places.items() if place == page.file.src_uri), None)
    return markdown if path is None else turned(markdown, path, _places)


def turned(markdown: str, path: str, places: dict[str, str]) -> str:
    """The text with its links turned; links within code, and to what is not in the site, stay.

    Args:
        markdown: the text of a document.
        path: of the document, from the repository's root.
        places: where each path of the repository lies in the site.
    """
    here = posixpath.dirname(places[path])

    def turn(found: re.Match[str]) -> str:
        place = places.get(_target(path, found[1]))
        return found[1] if place is None else posixpath.relpath(place, here or ".")

    parts, end = [], 0
    for code in _CODE.finditer(markdown):
        parts += [_LINK.sub(turn, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, _LINK.sub(turn, markdown[end:])])


def targets(path: str, markdown: str) -> Iterator[str]:
    """Paths, from the repository's root, that a document links to."""
    for link in _LINK.findall(_CODE.sub("", markdown)):
        yield _target(path, link)


def _target(path: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def _added(config: MkDocsConfig, path: str, place: str) -> File:
    _places[path] = place
    return File.generated(config, place, abs_src_path=str(ROOT / path))


def _listing(config: MkDocsConfig, folder: str) -> File:
    """A page with the names of a folder's files."""
    place = f"files/{folder}/index.md"
    names = sorted(one.name for one in (ROOT / folder).iterdir() if one.is_file())
    lines = [f"# {folder}", "", "Files of the repository's folder.", ""]
    _places[folder] = place
    return File.generated(config, place, content="\n".join([*lines, *(f"* `{n}`" for n in names)]))
