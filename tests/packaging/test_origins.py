"""NOTICE and CITATION.cff say what the tree and the project's settings say."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
KNOWN_CODE = ROOT / "videomae_fast/interop/acceleration/known_code.json"
LICENCE = re.compile(r"\b(MIT(-CMU)?|CC BY-NC 4\.0|Apache License 2\.0)\b")
PAPERS = {"arXiv:2203.12602", "arXiv:2303.16727"}


def notice() -> str:
    return (ROOT / "NOTICE").read_text(encoding="utf-8")


def origins() -> set[str]:
    """Who published the code that is known: ``owner/name at commit``, or ``transformers``."""
    known: dict[str, dict[str, str]] = json.loads(KNOWN_CODE.read_text(encoding="utf-8"))
    told = {where for digests in known.values() for where in digests.values()}
    repositories = (re.fullmatch(r"(\S+/\S+) \S+ (at \w+)", where) for where in told)
    found = {" ".join(match.groups()) for match in repositories if match}
    assert all(" at " in where or where.startswith("transformers ") for where in told)
    return found | {"transformers"}


@pytest.mark.parametrize("origin", sorted(origins()))
def test_the_notice_gives_the_licence_of_all_known_code(origin: str) -> None:
    lines = [line for line in notice().splitlines() if line.strip().startswith(f"* {origin}")]
    assert len(lines) == 1, f"NOTICE names {origin} {len(lines)} times"
    assert LICENCE.search(lines[0]), f"no licence: {lines[0]}"


def test_the_notice_speaks_of_files_that_are_there() -> None:
    paths = re.findall(r"\b(?:benchmarks|tests|videomae_fast)/(?:[\w/.]*[\w/])?", notice())
    assert len(paths) > 8
    for path in paths:
        assert (ROOT / path).exists(), path


def citation() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    read: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    return read


def test_the_citation_is_of_this_version_and_of_both_papers() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = citation()
    assert cited["cff-version"] == "1.2.0"
    assert cited["title"] == project["name"]
    assert cited["version"] == project["version"]
    assert cited["license"] == project["license"]
    assert [author["name"] for author in cited["authors"]] == [
        author["name"] for author in project["authors"]
    ]
    papers = {paper["identifiers"][0]["value"]: paper for paper in cited["references"]}
    assert set(papers) == PAPERS
    for number, paper in papers.items():
        assert paper["url"].endswith(number.removeprefix("arXiv:"))
        assert all(author["family-names"] for author in paper["authors"])


def test_the_package_links_to_the_papers_that_are_cited() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = {paper["title"].partition(":")[0]: paper["url"] for paper in citation()["references"]}
    assert project["urls"] == {f"{method} paper": url for method, url in cited.items()}
