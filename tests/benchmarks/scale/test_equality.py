"""The comparison of layouts: what is off, and by how much."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common.record import RESULTS
from benchmarks.scale import equality
from benchmarks.scale.equality import compared, table
from benchmarks.scale.layouts import RATE, reference, variants


def variant(loss: float, norm: float, weight: float) -> dict[str, Any]:
    return {"steps": [[2.0, 1.0], [loss, norm]], "weights": {"a": [1.0, 2.0], "b": [weight]}}


def test_the_largest_distance_of_each_kind() -> None:
    found = compared(variant(1.1, 0.9, 3.5), variant(1.0, 1.0, 3.0))
    assert found["loss"] == [2.0, 1.1]
    assert found["loss_off"] == pytest.approx(0.1)
    assert found["grad_norm_off"] == pytest.approx(0.1)
    assert found["weights_off"] == pytest.approx(0.5)


def test_what_each_is_to_equal_is_made_by_one_process() -> None:
    alone = variants(1)
    for processes, number in ((1, 8), (2, 16), (4, 24)):
        every = variants(processes)
        assert len(every) == number
        assert all(reference(name) in alone for name in every)


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def made(processes: int, steps: int) -> dict[str, Any]:
        return {"ddp; dual; 1": variant(1.0 + 1e-7 * processes, 1.0, 3.0)}

    monkeypatch.setattr(equality, "made", made)
    assert equality.main(["--processes", "2", "--steps", "2", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "| ddp; dual; 1 | 1 | 1.000000100 | 0.0e+00 | 0.0e+00 | 0.0e+00 |" in said
    assert "| ddp; dual; 1 | 2 | 1.000000200 | 1.0e-07 | 0.0e+00 | 0.0e+00 |" in said
    (path,) = tmp_path.glob("equality-cpu-*.json")
    record = json.loads(path.read_text())
    assert table(record) in said
    assert record["found"]["2"]["ddp; dual; 1"]["loss"][1] == 1.0000002


def test_the_record_holds_what_is_promised() -> None:
    newest = sorted(RESULTS.glob("equality-cpu-*.json"))[-1]
    record = json.loads(newest.read_text())
    assert record["settings"]["steps"] >= 20
    assert set(record["found"]) >= {"1", "2", "4"}
    for processes, every in record["found"].items():
        assert every.keys() == variants(int(processes)).keys()
        for one in every.values():
            assert one["loss_off"] <= 1e-6
            assert one["grad_norm_off"] <= 1e-5
            assert one["weights_off"] <= 1e-2 * RATE
    assert newest.with_suffix(".md").read_text().strip() == table(record)
