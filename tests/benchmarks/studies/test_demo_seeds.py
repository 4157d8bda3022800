"""The demo over seeds: its third classifier's compute, and a record with its table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.report.demo import demo_table
from benchmarks.studies import demo_seeds
from videomae_fast.demo import run, settings

TINY = settings.Scale(
    unlabelled=4, labelled=1, held_out=1, steps=20, finetuning_steps=6, videos_per_step=4,
    labelled_per_step=4, image_size=32, width=32, depth=1,
)  # fmt: skip


@pytest.mark.parametrize("scale", [settings.FULL, TINY])
def test_the_third_classifier_has_the_multiply_adds_of_both_runs(scale: settings.Scale) -> None:
    whole, step = demo_seeds.work_of(scale)
    longer = demo_seeds.with_all_compute(scale)
    both = whole + scale.finetuning_steps * step
    assert longer.finetuning_steps * step == pytest.approx(both, abs=step)
    assert replace(longer, finetuning_steps=scale.finetuning_steps) == scale


def test_each_seed_is_a_demo_and_a_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(settings, "FULL", TINY)
    monkeypatch.setattr(settings, "STEPS_PER_EPOCH", 5)
    monkeypatch.setattr(run, "FALLEN", 2.0)
    words = ["--seeds", "3", "4", "--threads", "1", "--work", str(tmp_path / "work")]
    assert demo_seeds.main([*words, "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("demo-seeds-*.json")
    record = json.loads(path.read_text())
    assert [one["seed"] for one in record["runs"]] == [3, 4]
    first, second = record["runs"]
    assert first["reconstruction"] != second["reconstruction"]
    assert set(first["classes"]) == {"pre-trained", "from scratch", demo_seeds.LONG}
    longer = demo_seeds.with_all_compute(replace(TINY, unlabelled=4)).finetuning_steps
    assert first["classes"][demo_seeds.LONG]["steps"] == longer
    told = demo_table(record)
    assert "| | seed 3 | seed 4 | mean | deviation |" in told
    assert "8 held-out videos in the right class, %: from scratch, all compute" in told
    assert path.with_suffix(".png").exists()
    assert "seed 4: held out" in capsys.readouterr().out
