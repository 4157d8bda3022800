"""The distillation experiment: a tiny run, and what a table says of made-up scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.report import records as report
from benchmarks.report.distillation import gains, verdict
from benchmarks.report.plots import PLOTS
from benchmarks.studies import distillation
from videomae_fast.recipes import DistillConfig


def test_a_tiny_experiment_leaves_record_table_and_plot(tmp_path: Path) -> None:
    words = ["--tiny", "--seeds", "1", "--threads", "1", "--work", str(tmp_path / "work")]
    words += ["--ways", "labels", "logits", "features", "--out", str(tmp_path / "out")]
    words += ["--first-seed", "2"]
    assert main(["distillation", *words]) == 0
    (path,) = (tmp_path / "out").glob("distillation-tiny-cpu-*.json")
    record = json.loads(path.read_text())
    assert [(run["way"], run["seed"], run["steps"]) for run in record["runs"]] == [
        ("labels", 2, 4), ("logits", 2, 4), ("features", 2, 4),
    ]  # fmt: skip
    assert "teacher_ms" not in record["runs"][0]
    assert all(0 < run["teacher_share"] < 1 for run in record["runs"][1:])
    table = path.with_suffix(".md").read_text()
    assert table == report.TABLES["distillation"](record) + "\n"
    assert "TINY, TO TEST THE SCRIPT" in table
    assert "too few seeds to say more" in table
    assert path.with_suffix(".png").stat().st_size > 10_000
    assert str(tmp_path) not in record["command"]


def test_ways_differ_in_the_teacher_alone(tmp_path: Path) -> None:
    shared = distillation.common(tmp_path, tmp_path / "few.csv", tmp_path / "val.csv")
    made = [
        distillation.student_of(way, distillation.Scale(), 3, shared, Path("t"))
        for way in ("labels", "logits")
    ]
    assert isinstance(made[1], DistillConfig)
    for section in ("model", "data", "augment", "mix", "optim", "schedule", "run"):
        assert getattr(made[0], section) == getattr(made[1], section)
    assert made[1].distillation.label_share == 0


def test_videos_of_a_class_move_its_way() -> None:
    centres = []
    for label in range(4):
        first, *_, last = distillation.pictures(label, 7, 4)
        bright = [(one.min(-1) > 125).nonzero() for one in (first, last)]
        centres.append([(b[0].mean(), b[1].mean()) for b in bright])
    moved = [(end[0] - begin[0], end[1] - begin[1]) for begin, end in centres]
    right, down, left, up = moved
    assert right[1] > 8
    assert left[1] < -8
    assert down[0] > 8
    assert up[0] < -8
    again = [one.tobytes() for one in distillation.pictures(1, 7, 4)]
    assert again == [one.tobytes() for one in distillation.pictures(1, 7, 4)]


@pytest.mark.parametrize(
    ("logits", "told"),
    [
        ((0.70, 0.72, 0.75), r"\+22\.3 points .* better for 3 of 3 seeds; above 0 by more"),
        ((0.49, 0.52, 0.49), "within two standard errors of 0: no difference is shown"),
        ((0.30, 0.31, 0.29), r"-20\.0 points .* better for 0 of 3 seeds; BELOW 0"),
        ((0.70,), r"\+20\.0 points .*too few seeds"),
    ],
)
def test_a_verdict_is_what_the_scores_say(logits: tuple[float, ...], told: str) -> None:
    import re

    labels = (0.5, 0.51, 0.49)
    record = {
        "runs": [
            {"way": way, "seed": seed, "top1": top1}
            for way, found in (("labels", labels), ("logits", logits))
            for seed, top1 in enumerate(found)
        ]
    }
    assert len(gains(record, "logits")) == len(logits)
    assert re.search(told, verdict(record, "logits"))


def test_wrong_use_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--tiny", "--student-videos", "9"], "9 videos of a class, of the teacher's 4"),
    ):
        with pytest.raises(SystemExit):
            distillation.main(words)
        assert told in capsys.readouterr().err
    assert "distillation" in PLOTS
