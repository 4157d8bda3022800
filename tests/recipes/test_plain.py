"""Configurations to JSON and back, today's format and the one before, and unknown names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from videomae_fast.errors import UsageError
from videomae_fast.recipes.fields import settings
from videomae_fast.recipes.plain import FORMAT, changed, from_plain, to_plain
from videomae_fast.recipes.schema import (
    Data,
    Masks,
    Model,
    Optim,
    PretrainConfig,
    Run,
    Schedule,
    Target,
)
from videomae_fast.recipes.source import Source


@pytest.fixture
def config(tmp_path: Path) -> PretrainConfig:
    lists = (Source(Path("a.csv"), tmp_path, weight=2.0, stride=2, excludes=("x",)),)
    return changed(
        PretrainConfig(),
        {
            "model.image_size": (32, 64), "model.width": 96, "model.heads": 3, "data.lists": lists,
            "optim.betas": (0.8, 0.9), "masks.encoder_ratio": 0.75, "target.normalize": False,
        },
    )  # fmt: skip


def test_through_json_and_back(config: PretrainConfig) -> None:
    plain = json.loads(json.dumps(to_plain(config)))
    assert plain["format"] == FORMAT
    assert plain["optim"]["betas"] == [0.8, 0.9]
    assert from_plain(PretrainConfig, plain) == config


def test_the_format_before_is_read() -> None:
    """``config.json`` as the last version with one level wrote it."""
    text = Path(__file__).with_name("format_1.json").read_text()
    lists = (
        Source(Path("a.csv"), Path("videos"), weight=2.0, stride=2, excludes=("x",)),
        Source(Path("b.csv"), weight=1.0, only="folders", name_pattern="image_{:06}.jpg"),
    )
    assert from_plain(PretrainConfig, json.loads(text)) == PretrainConfig(
        model=Model(size="small", image_size=(128, 160), width=96, heads=3),
        masks=Masks(encoder="random", encoder_ratio=0.75, decoder="none"),
        target=Target(normalize=False),
        data=Data(lists=lists, samples=2, order="table"),  # the only one there was
        optim=Optim(videos_per_step=64, base_lr=3e-4, betas=(0.8, 0.9)),
        schedule=Schedule(epochs=30, warmup_epochs=3),
        run=Run(seed=7, precision="bf16", activation_checkpointing=True, log_every=5),
    )
    fewer = {name: value for name, value in json.loads(text).items() if name != "seed"}
    assert from_plain(PretrainConfig, fewer).run.seed == 0  # of a version that had it not


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"base_lrr": 1.0}, r"unknown field 'base_lrr'; did you mean base_lr\?"),
        ({"format": 3}, "format 3 is none that this version reads: 1 .no number. or 2"),
        ({"format": 2, "optimm": {}}, r"unknown section 'optimm'; did you mean optim\?"),
        ({"format": 2, "xyz": {}}, "unknown section 'xyz'; there are model, masks, target"),
        ({"format": 2, "optim": 3}, "optim is a section: its fields stand in it"),
        ({"format": 2, "base_lr": 3}, r"unknown section 'base_lr'; did you mean optim.base_lr\?"),
        (
            {"format": 2, "schedule": {"base_lr": 3}},
            r"unknown field 'schedule.base_lr'; did you mean optim.base_lr\?",
        ),
        (
            {"format": 2, "masks": {"encoder_mask": "tube"}},
            r"unknown field 'masks.encoder_mask'; did you mean masks.encoder\?",
        ),
        (
            {"data": [{"path": "a", "wieght": 1}]},
            r"unknown option of a data list: wieght; did you mean weight\?",
        ),
        ({"data": [{"weight": 1}]}, "a data list without path"),
        ({"data": [{"path": "a", "weight": "x"}]}, "data.lists.weight must be a number, not 'x'"),
        ({"data": [{"path": 7}]}, "data.lists.path must be a path, not 7"),
        ({"data": 7}, "data.lists must be a list of data lists, not 7"),
    ],
)
def test_what_cannot_be_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_plain(PretrainConfig, values)


def test_every_value_comes_back_as_it_was() -> None:
    other = {
        "model.image_size": (32, 48), "model.init": "w.pth", "optim.betas": (0.5, 0.6),
        "data.lists": (Source(Path("a")),), "run.seed": 2**62, "run.shard": "node",
        "masks.encoder_ratio": 0.5, "data.scales": (0.75, 0.875),
        "model.drop_path": 0.5, "data.max_failed_share": 0.5, "optim.min_lr": 1e-4,
            "schedule.warmup_epochs": 3,
    }  # fmt: skip
    for name, setting in settings(PretrainConfig).items():
        kinds = {bool: not setting.default, int: 240, float: 7.5, str: "x"}
        kind = setting.plain_kinds[0]
        value = setting.choices[-1] if setting.choices else other.get(name, kinds.get(kind))
        with_it = {"run.shard": "all"} if name == "run.reshard" else {}
        config = changed(PretrainConfig(), {name: value, **with_it})
        assert config != PretrainConfig(), name
        assert from_plain(PretrainConfig, json.loads(json.dumps(to_plain(config)))) == config
