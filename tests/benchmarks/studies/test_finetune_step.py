"""Fine-tuning's step: equal to the official engine's before anything is timed."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.contenders.base import Variant
from benchmarks.contenders.classifiers import LabelledWorkload, OurFinetuning, build
from benchmarks.measure.checks import check, truth
from benchmarks.studies import finetune_step
from videomae_fast import MAEConfig

CONFIG = MAEConfig(image_size=32, frames=4, width=32, depth=2, heads=2)
WORDS = "--size small --batch 2 --depth 1 --image-size 32 --frames 4 --threads 1 --repeats 2"


@pytest.fixture
def workload():
    return LabelledWorkload(CONFIG, batch=2, classes=7)


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_ours_is_the_official_step(workload, mixing):
    against = truth(build("official", Variant("official"), workload, mixing))
    ours = build("ours", Variant("ours", lean=True), workload, mixing)
    result = check(ours, against)
    assert result.passed
    assert result.masking == mixing
    assert sorted({g["lr_scale"] for g in ours.optimizer.param_groups}) == pytest.approx(
        [0.75**3, 0.75**2, 0.75, 1.0]
    )


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_both_optimizers_update_alike(workload, mixing):
    after = []
    for kind in (Variant("official"), Variant("ours", lean=True)):
        contender = build("one", kind, workload, mixing)
        for group in contender.optimizer.param_groups:
            group["lr"] *= 1e3
        contender.backward(contender.forward())
        contender.update()
        after.append(contender.model.state_dict())
    for name, value in after[0].items():
        torch.testing.assert_close(after[1][name], value, rtol=1e-3, atol=2e-5, msg=name)


def test_the_command_writes_what_it_checked(tmp_path, capsys):
    assert finetune_step.main([*WORDS.split(), "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("finetune-step-small-batch2-cpu-*.json")
    record = json.loads(path.read_text())
    assert [(run["contender"], run["masking"]) for run in record["runs"]] == [
        ("official", "mixup"), ("ours", "mixup"), ("official", "cutmix"), ("ours", "cutmix"),
    ]  # fmt: skip
    assert path.with_suffix(".md").read_text().count("× |") or "×**" in capsys.readouterr().out
    assert path.with_suffix(".png").exists()


def test_nothing_is_timed_of_what_differs(tmp_path, monkeypatch, capsys):
    honest = OurFinetuning.loss
    monkeypatch.setattr(OurFinetuning, "loss", lambda self: honest(self) * 1.001)
    assert finetune_step.main([*WORDS.split(), "--out", str(tmp_path)]) == 1
    assert not list(tmp_path.iterdir())
    assert "NOT EQUAL" in capsys.readouterr().out


def test_an_odd_batch_is_refused(capsys):
    with pytest.raises(SystemExit):
        finetune_step.main(["--batch", "3"])
    assert "must be even" in capsys.readouterr().err
