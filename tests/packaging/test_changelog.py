"""CHANGELOG.md has the headings of Keep a Changelog, each once and in their order."""

from __future__ import annotations

import re
from pathlib import Path

TEXT = (Path(__file__).parents[2] / "CHANGELOG.md").read_text(encoding="utf-8")
USUAL = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def test_versions_have_the_usual_headings() -> None:
    first, *versions = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    assert "Keep a Changelog" in first
    assert versions[0].startswith("Unreleased\n")
    for version in versions:
        found = re.findall(r"^### (.*)$", version, re.MULTILINE)
        assert found == [kind for kind in USUAL if kind in found], version.partition("\n")[0]


def test_entries_are_entries() -> None:
    """What no list has would stand in no section that a reader looks through."""
    lines = TEXT.partition("## Unreleased\n")[2].splitlines()
    assert [line for line in lines if line and not line.startswith(("- ", "  ", "#"))] == []
