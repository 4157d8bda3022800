"""The README's table of steps on GPUs."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.common.record import write
from benchmarks.measure.checks import UncheckedError
from benchmarks.report import newest, readme


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder of results, empty."""
    monkeypatch.setattr(newest, "ROOT", tmp_path)
    return tmp_path / "results"


def record(runs: dict[str, float], *, device: str = "NVIDIA H100", batch: int = 8) -> Any:
    return {
        "machine": {"device": device, "cpu": "a CPU", "threads": 2},
        "settings": {"tiny": False},
        "workload": {"size": "base", "batch": batch},
        "runs": [
            {
                "contender": name, "masking": "dual", "summary": {"total": {"median": ms / 1e3}},
                "official_flop_per_second": 98.9e12, "step_peak_bytes_per_clip": 5e6,
            }
            for name, ms in runs.items()
        ],
        "checks": [
            {"contender": name, "masking": "dual", "passed": True, "reference": "it",
             "loss_error": 0.0, "gradient_error": 0.0}
            for name in runs
        ],
    }  # fmt: skip


def test_the_fastest_of_ours_beside_each_baseline(results):
    runs = {"ours, eager": 50.0, "ours, captured": 20.0, "strong": 30.0}
    write(record(runs), results / "baselines-base-batch8-h100-20260101-000000.json")
    lines = readme.block("gpu", results).splitlines()
    assert lines[-3].endswith("| ours | MFU | MB a clip | strong |")
    assert lines[-1].endswith("| dual | 20 ms (captured) | 10.0% | 5 | 30 ms **1.50×** |")
    assert "ViT-B, batch 8, NVIDIA H100 ([data](results/baselines-base" in lines[-1]


def test_a_cpu_is_no_gpu_and_a_card_no_other(results):
    runs = {"ours, eager": 50.0, "strong": 60.0}
    for i, device in enumerate(("cpu", "NVIDIA H100", "NVIDIA H200")):
        path = results / f"baselines-base-batch8-{i}-20260101-000000.json"
        write(record(runs, device=device), path)
    told = readme.block("gpu", results)
    assert told.count("| dual |") == 2
    assert "NVIDIA H200" in told


def test_one_step_alone_is_no_figure(results):
    found = record({"ours, captured": 20.0, "strong": 30.0, "official repaired, compiled": 60.0})
    for run, count in zip(found["runs"], (9, 1, 9), strict=True):
        run["summary"]["total"]["count"] = count
    write(found, results / "baselines-base-batch8-h100-20260101-000000.json")
    assert "| ours | MFU | MB a clip | repaired, compiled |" in readme.block("gpu", results)


def test_what_was_not_checked_is_no_figure(results):
    found = record({"ours, eager": 50.0, "strong": 60.0})
    found["checks"][0]["passed"] = False
    write(found, results / "baselines-base-batch8-h100-20260101-000000.json")
    with pytest.raises(UncheckedError):
        readme.block("gpu", results)
