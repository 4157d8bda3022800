"""Every link of the built site leads somewhere: to a file, and to an anchor in it.

MkDocs looks at the links of Markdown; this looks at what came of them, the reference's cross
references and pictures too, and at Markdown that was not taken for such.
"""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import BuildError

_LEFT = re.compile(r"^\s*(?:[*-] |\|.*\|$|```|#{1,6} )|\]\(", re.MULTILINE)


def on_post_build(*, config: MkDocsConfig) -> None:
    """Ends the build where something is wrong."""
    if wrong := broken(Path(config.site_dir)):
        raise BuildError("\n".join(["the site is built, and wrong in places:", *wrong]))


class _Page(HTMLParser):
    """The links and anchors of a page, and text of paragraphs that looks like Markdown."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.left: list[str] = []
        self._text: list[str] | None = None
        self._code = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [link for name in ("href", "src") if (link := given.get(name))]
        self.anchors |= {anchor for name in ("id", "name") if (anchor := given.get(name))}
        if tag == "p":
            self._text = []
        self._code += tag == "code"

    def handle_data(self, data: str) -> None:
        if self._text is not None and not self._code:
            self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag == "code"
        if tag == "p" and self._text is not None:
            text, self._text = "".join(self._text), None
            if _LEFT.search(text):
                self.left.append(" ".join(text.split())[:80])


def broken(site: Path) -> list[str]:
    """A sentence for each link without a target, and each piece of Markdown that was left.

    Args:
        site: the folder of the built site.

    Returns:
        The sentences, by page; what leads out of the site is not looked at.
    """
    pages = {path: _Page(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    wrong = []
    for path, page in pages.items():
        here = path.relative_to(site)
        wrong += [f"{here}: Markdown that was not taken for such: {text}" for text in page.left]
        for link in dict.fromkeys(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (
                Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
            )
            target = target / "index.html" if target.is_dir() else target
            if not target.is_relative_to(site) or not target.is_file():
                wrong.append(f"{here}: {link} leads to no file")
            elif parts.fragment and target in pages and not _has(pages[target], parts.fragment):
                wrong.append(f"{here}: {link} leads to no anchor")
    return wrong


def _has(page: _Page, fragment: str) -> bool:
    return unquote(fragment) in page.anchors or fragment.startswith("__")
