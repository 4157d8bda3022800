"""The README's figures are those of the newest results."""

from __future__ import annotations

from benchmarks import readme


def test_the_readme_says_what_was_measured():
    assert readme.main(["--check"]) == 0, "run: python -m benchmarks.readme"


def test_a_changed_figure_is_noticed(monkeypatch, tmp_path):
    text = readme.README.read_text(encoding="utf-8")
    changed = tmp_path / "README.md"
    changed.write_text(text.replace(" ms |", " s |"), encoding="utf-8")
    monkeypatch.setattr(readme, "README", changed)
    assert readme.main(["--check"]) == 1
