"""The picture of a plan's accuracies."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from videomae_fast.pictures.stage_scores import Bar, save_stage_scores


def test_a_picture_grows_with_its_stages_and_leaves_nothing_else(tmp_path: Path) -> None:
    heights = []
    for count in (2, 20):
        bars = [Bar(f"stage {i}", ("validation", "test")[i % 2], i / 20) for i in range(count)]
        curves = {"stage 0": [(0.5, 0.2), (1.0, 0.4)]}
        path = save_stage_scores(tmp_path / f"{count}.png", bars, curves, title="plan")
        image = Image.open(path)
        assert image.format == "PNG"
        assert len(image.convert("RGB").getcolors(maxcolors=1 << 20) or ()) > 3
        heights.append(image.size[1])
    assert heights[1] > heights[0]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["2.png", "20.png"]


def test_without_an_accuracy_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no stage has an accuracy"):
        save_stage_scores(tmp_path / "none.png", [], {}, title="plan")
    assert not list(tmp_path.iterdir())
