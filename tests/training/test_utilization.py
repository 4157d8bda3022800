"""Shares of a GPU's peak: what is counted, by which peak, and where nothing is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support.runs import altered
from videomae_fast.masks import MaskSpec
from videomae_fast.models.config import MAEConfig
from videomae_fast.models.flops import encoder_flops, flops
from videomae_fast.recipes import PretrainConfig
from videomae_fast.tasks.pretraining import Reconstruction, settings_of
from videomae_fast.training import pretrain, utilization
from videomae_fast.training.metrics import read_metrics
from videomae_fast.training.parallel.world import World
from videomae_fast.training.utilization import Utilization, peak_of, peak_of_name


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_peaks_by_name(name: str, peak: float | None) -> None:
    assert peak_of_name(name) == peak


def test_the_encoder_with_all_tokens_is_that_of_the_papers_table() -> None:
    # ViT-B at 16 x 224 x 224: 180 G multiply-adds (VideoMAE paper, table of Kinetics-400)
    assert encoder_flops(MAEConfig.from_size("base")) / 1e9 == pytest.approx(180, rel=0.01)


def test_a_step_by_its_work(
    tiny: Callable[..., PretrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(utilization, "peak_of", lambda device: 1e12)
    config = tiny(precision="bf16", activation_checkpointing=True)
    world = World(0, 4, torch.device("cpu"))
    shape = Reconstruction(config).shape
    spec = MaskSpec(encoder_ratio=0.5)
    official, ours = (sum(flops(shape, spec, kind).values()) for kind in ("official", "ours"))
    assert ours < official
    found = Utilization(Reconstruction(config), settings_of(config), world).shares(1000.0)
    assert found["mfu"] == pytest.approx(1000 * 6 * official / 4e12)
    assert found["hfu"] == pytest.approx(1000 * 8 * ours / 4e12)
    plain = altered(config, activation_checkpointing=False)
    found = Utilization(Reconstruction(plain), settings_of(plain), world).shares(1000.0)
    assert found["hfu"] == pytest.approx(1000 * 6 * ours / 4e12)
    fp32 = altered(config, precision="fp32")
    assert Utilization(Reconstruction(fp32), settings_of(fp32), world).shares(1000.0) == {}
    assert Utilization(object(), settings_of(config), world).shares(1000.0) == {}


def test_runs_tell_it_and_not_on_a_cpu(
    tiny: Callable[..., PretrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert peak_of(torch.device("cpu")) is None
    config = tiny(precision="bf16", steps=4)
    said: list[str] = []
    pretrain(config, output=tmp_path / "cpu", log=said.append)
    assert not any("MFU" in line for line in said)
    lines = read_metrics(tmp_path / "cpu" / "metrics.jsonl")
    assert "mfu" not in lines[-1]
    assert 0 < lines[-1]["goodput"] <= 1

    monkeypatch.setattr(utilization, "peak_of", lambda device: 1e9)
    said.clear()
    prometheus = tmp_path / "run.prom"
    config = altered(config, prometheus=str(prometheus))
    pretrain(config, output=tmp_path / "known", log=said.append)
    (last,) = (line for line in said if line.startswith("step 4/4"))
    assert "MFU " in last
    assert "HFU " in last
    assert "goodput " in last
    line = read_metrics(tmp_path / "known" / "metrics.jsonl")[-1]
    official = Reconstruction(config).work().official
    assert line["mfu"] == pytest.approx(line["clips_per_s"] * 6 * official / 1e9)
    assert {"mfu", "hfu", "goodput"} <= {
        text.partition("{")[0].removeprefix("videomae_fast_")
        for text in prometheus.read_text().splitlines()
    }
