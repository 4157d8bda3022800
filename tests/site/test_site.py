"""What makes the documentation's site of docs/ and of docstrings; `make site` builds the whole."""

from __future__ import annotations

import re
from pathlib import Path

import griffe
import pytest

from docs.site import commands
from docs.site.api import PACKAGE, defined, page, public_names
from docs.site.check import broken
from docs.site.docstrings import as_markdown
from docs.site.navigation import filled
from docs.site.repository import PAGES, ROOT, targets, turned

PLACES = {
    "docs/guide/data.md": "guide/data.md",
    "docs/design.md": "design.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "benchmarks/results/a.json": "files/benchmarks/results/a.json",
}


@pytest.mark.parametrize(
    ("path", "link", "expected"),
    [
        ("docs/guide/data.md", "../design.md", "../design.md"),
        ("docs/guide/data.md", "../../CONTRIBUTING.md", "../project/contributing.md"),
        ("docs/guide/data.md", "../../CONTRIBUTING.md#rules", "../project/contributing.md#rules"),
        ("docs/design.md", "../benchmarks/results/a.json", "files/benchmarks/results/a.json"),
        ("CONTRIBUTING.md", "docs/design.md", "../design.md"),
        ("docs/design.md", "https://example.org/a", "https://example.org/a"),
        ("docs/design.md", "#here", "#here"),
        ("docs/design.md", "nowhere.md", "nowhere.md"),
    ],
)
def test_a_link_leads_to_where_its_target_lies_in_the_site(
    path: str, link: str, expected: str
) -> None:
    assert turned(f"see [it]({link}) so", path, PLACES) == f"see [it]({expected}) so"


def test_code_is_left_alone() -> None:
    text = "[a](CONTRIBUTING.md)\n\n```python\nf[a](CONTRIBUTING.md)\n```\n"
    assert turned(text, "CONTRIBUTING.md", PLACES) == text.replace(
        "[a](CONTRIBUTING.md)\n\n", "[a](contributing.md)\n\n"
    )
    assert list(targets("CONTRIBUTING.md", text)) == ["CONTRIBUTING.md"]


def test_the_pages_from_outside_are_there() -> None:
    assert [path for path in PAGES if not (ROOT / path).is_file()] == []


def test_roles_become_links_of_what_the_reference_shows() -> None:
    homes = {"videomae_fast.masks.Masks": "videomae_fast.masks.batch.Masks"}
    homes |= {home: home for home in homes.values()}
    for role, expected in {
        ":class:`~videomae_fast.masks.Masks`": "[`Masks`][videomae_fast.masks.batch.Masks]",
        ":class:`Masks`": "[`Masks`][videomae_fast.masks.batch.Masks]",
        ":meth:`~videomae_fast.masks.Masks.sample`": (
            "[`sample`][videomae_fast.masks.batch.Masks.sample]"
        ),
        ":func:`videomae_fast.secret`": "`videomae_fast.secret`",
        ":meth:`Masks._hidden`": "`Masks._hidden`",
    }.items():
        assert as_markdown(f"See {role}.", "videomae_fast.masks", homes) == f"See {expected}."
    assert as_markdown("So:\n\n::\n\n    f()", "m", {}) == "So:\n\n\n    f()"


def test_the_reference_has_each_public_name_once() -> None:
    package = griffe.load(PACKAGE, search_paths=[ROOT])
    described: dict[str, str] = {}
    text = "".join(
        page(package, module, names, described) for module, names in public_names().items()
    )
    directives = [line[4:] for line in text.splitlines() if line.startswith("::: ")]
    assert len(directives) == len(set(directives)) > 100
    for module, names in public_names().items():
        for name in names:
            assert text.count(f"::: {defined(package, module, name)}\n") == 1, f"{module}.{name}"
            assert f'"{module}.{name}"' in text or f"## `{module}.{name}`" in text
    assert defined(package, "videomae_fast.ops", "attention") == (
        "videomae_fast.ops.attention.attention"
    )


def test_the_reference_has_each_command_and_its_options() -> None:
    text = commands.page()
    listed = (ROOT / "tests/packaging/public_api.txt").read_text(encoding="utf-8").splitlines()
    names = [line.removeprefix("command ") for line in listed if line.startswith("command ")]
    headings = re.findall(r"^## (.*)", text, re.MULTILINE)
    assert set(headings) >= {*names, "detect train", "detect test"}
    assert "--videos-per-step" in text


def test_a_folder_of_the_navigation_becomes_its_pages() -> None:
    nav = [{"A": ["a.md", {"B": "b/"}]}, {"C": "c.md"}]
    pages = [{"one": "b/one.md"}, {"two": "b/two.md"}]
    assert filled(nav, {"b/": pages}) == [{"A": ["a.md", {"B": pages}]}, {"C": "c.md"}]


GOOD = """<h1 id="top">A</h1><a href="b.html#there">b</a><a href="#top">t</a>
<a href="https://example.org/none">out</a><img src="a.png"><p>all <code>* is</code> well</p>"""


def test_a_site_without_a_fault_has_none(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(GOOD)
    (tmp_path / "b.html").write_text('<h2 id="there">B</h2>')
    (tmp_path / "a.png").write_bytes(b"")
    assert broken(tmp_path) == []


@pytest.mark.parametrize(
    ("html", "said"),
    [
        ('<a href="none.html">', "none.html leads to no file"),
        ('<img src="none.png">', "none.png leads to no file"),
        ('<a href="../outside.html">', "../outside.html leads to no file"),
        ('<a href="#none">', "#none leads to no anchor"),
        ('<a href="a.html#none">', "a.html#none leads to no anchor"),
        ("<p>a list:\n* one\n* two</p>", "Markdown that was not taken for such: a list: * one"),
        ("<p>| a | b |\n|-|-|</p>", "Markdown that was not taken for such: | a | b |"),
        ("<p>see [this](that.md)</p>", "Markdown that was not taken for such: see [this]"),
    ],
)
def test_a_fault_is_named_with_its_page(html: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(html)
    (told,) = broken(tmp_path)
    assert told.startswith(f"a.html: {said}")
