"""Accuracies by epoch: a line each, chance, and the last value in figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from videomae_fast.pictures.accuracies import save_accuracies


def test_lines_chance_and_last_values_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    tops = {"pre-trained": [0.2, 0.777], "from scratch": [0.1, 0.2, 0.5]}
    with pytest.MonkeyPatch.context() as patch:
        import matplotlib

        patch.setitem(matplotlib.rcParams, "svg.fonttype", "none")  # texts stay texts
        assert save_accuracies(path, tops, chance=0.125, title="a title") == path
    drawn = path.read_text(encoding="utf-8")
    for told in ("a title", "pre-trained", "from scratch", "chance", ">77.7<", ">50.0<"):
        assert told in drawn
