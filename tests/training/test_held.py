"""The most that one of many GPUs holds, counted on tensors without values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.scale import held
from videomae_fast.recipes import PretrainConfig, changed
from videomae_fast.recipes.plain import from_flat

SHAPE = {
    "image_size": 64, "frames": 4, "width": 256, "depth": 6, "heads": 4,
    "decoder_width": 64, "decoder_depth": 1, "decoder_heads": 1,
}  # fmt: skip


def test_it_is_beside_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = held.config_of

    def small(size: str, gpus: int, clips: int) -> PretrainConfig:
        return changed(made(size, gpus, clips), from_flat(PretrainConfig, SHAPE))

    monkeypatch.setattr(held, "config_of", small)
    words = ["--size", "small", "--gpus", "4", "--clips", "2", "--out", str(tmp_path)]
    assert held.main(words) == 0
    (path,) = tmp_path.glob("held-small-*.json")
    kept, freed = json.loads(path.read_text())["rows"]
    assert [kept["layout"], freed["layout"]] == ["flat 4, no reshard", "flat 4, reshard"]
    for one in (kept, freed):
        assert one["between_steps"] == pytest.approx(one["between_steps_planned"], rel=0.05)
        assert one["between_steps"] < one["peak"] < 1.1 * one["planned"]
    assert kept["peak"] > freed["peak"], "weights in bf16 are kept"
    assert path.with_suffix(".md").read_text().count("| small | 4 × 2 | ") == 2
