"""CHANGELOG.md has the headings of Keep a Changelog in their order, and names the version."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
USUAL = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def test_versions_have_the_usual_headings() -> None:
    first, *versions = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    assert "Keep a Changelog" in first
    assert versions[0].startswith("Unreleased\n")
    for version in versions:
        found = re.findall(r"^### (.*)$", version, re.MULTILINE)
        assert found == [kind for kind in USUAL if kind in found], version.partition("\n")[0]


def test_entries_are_entries() -> None:
    """What no list has would stand in no section that a reader looks through.

    A version may have an introduction, before its first heading.
    """
    versions = re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]
    sections = [
        part for one in versions for part in re.split(r"^### ", one, flags=re.MULTILINE)[1:]
    ]
    lines = [line for text in sections for line in text.splitlines()[1:]]
    assert [line for line in lines if line and not line.startswith(("- ", "  ", "#"))] == []


def test_the_newest_version_is_the_package_s() -> None:
    """Where it is said: package, citation, changelog with the day of its release."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = re.findall(r"^## (\d+\.\d+\.\d+) - (\S+)$", TEXT, re.MULTILINE)
    assert found[0][0] == project["version"]
    days = [date.fromisoformat(day) for _, day in found]
    assert days == sorted(days, reverse=True)
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (\S+)$", citation, re.MULTILINE) == [project["version"]]
    assert re.findall(r"^date-released: \"?([\d-]+)", citation, re.MULTILINE) == [found[0][1]]
