"""Two training runs beside each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.studies import loss_curves
from videomae_fast import MaskedAutoencoder


def test_ours_follows_the_official_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--tiny", "--steps", "12", "--batch", "2", "--clips", "8", "--out", str(tmp_path)]
    assert loss_curves.main([*words, "--threads", "1"]) == 0
    (path,) = tmp_path.glob("*.json")
    record = json.loads(path.read_text())
    losses = record["losses"]
    assert len(losses["ours"]) == len(losses["official"]) == 12
    assert len(set(losses["ours"])) == 12
    assert loss_curves.apart(record) < 1e-4
    assert path.with_suffix(".png").stat().st_size > 10_000
    assert record["command"].startswith("python -m benchmarks loss-curves --tiny")
    assert str(tmp_path) not in record["command"]
    assert "largest relative difference" in capsys.readouterr().out


def test_ours_in_bf16_stays_beside_the_official_run_in_fp32(tmp_path: Path) -> None:
    words = ["--tiny", "--steps", "6", "--batch", "2", "--clips", "4", "--out", str(tmp_path)]
    assert loss_curves.main([*words, "--threads", "1", "--ours", "bf16"]) == 0
    (path,) = tmp_path.glob("loss-curves-tiny-fp32-bf16-*.json")
    record = json.loads(path.read_text())
    assert (record["precision"], record["precision of ours"]) == ("fp32", "bf16")
    assert 1e-6 < loss_curves.apart(record) < 0.02


def test_another_function_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = MaskedAutoencoder.forward

    def louder(self, frames, masks, **options):  # type: ignore[no-untyped-def]
        output = forward(self, frames, masks, **options)
        output.loss = output.loss * 1.01
        return output

    monkeypatch.setattr(MaskedAutoencoder, "forward", louder)
    words = ["--tiny", "--steps", "2", "--batch", "2", "--clips", "4", "--threads", "1"]
    record = loss_curves.run(loss_curves.arguments().parse_args(words), [])
    assert loss_curves.apart(record) > 0.009
