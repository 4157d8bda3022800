"""A state that another version of torch wrote: see :mod:`tests.support.another_torch`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.another_torch import PICTURES, SMALLEST, STEPS, clips
from tests.support.runs import altered, quiet
from videomae_fast.data import Source
from videomae_fast.recipes import PretrainConfig
from videomae_fast.tasks.trained import load_model
from videomae_fast.training import pretrain
from videomae_fast.training.checkpoint import read

WRITTEN = Path(__file__).parents[1] / "golden" / "torch_2.11"
HALF = f"step-{STEPS // 2:08d}"


def test_a_run_goes_on_from_shards_that_torch_2_11_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the list names its clips from here
    saved = read(WRITTEN / HALF)
    assert (saved.state["format"], saved.step) == (3, STEPS // 2)
    assert saved.state["versions"]["torch"].startswith("2.11.")
    moments = saved.optimizer()
    model, _ = load_model(WRITTEN / HALF)
    for name, parameter in model.named_parameters():
        assert moments[f"exp_avg.{name}"].shape == parameter.shape
        assert float(moments[f"exp_avg_sq.{name}"].min()) >= 0
        assert float(moments[f"step.{name}"]) == STEPS // 2

    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    shutil.copytree(WRITTEN / HALF, tmp_path / "run" / "checkpoints" / HALF)
    source = Source(clips(tmp_path), name_pattern=PICTURES)
    config = altered(PretrainConfig(), data=(source,), **SMALLEST)
    (tmp_path / "run" / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": step}) + "\n" for step in range(STEPS // 2))
    )
    pretrain(config, output=tmp_path / "run", log=quiet)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[STEPS // 2 :]
    found = [json.loads(line) for line in lines]
    for one, expected in zip(found, json.loads((WRITTEN / "losses.json").read_text()), strict=True):
        step, loss, norm, rate = expected
        assert (one["step"], one["lr"]) == (step, rate)
        assert one["loss"] == pytest.approx(loss, rel=1e-4)
        assert one["grad_norm"] == pytest.approx(norm, rel=1e-3)
