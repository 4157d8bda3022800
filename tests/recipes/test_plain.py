"""Configurations to JSON and back, today's format and the one before, and unknown names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from videomae_fast.errors import UsageError
from videomae_fast.recipes.fields import settings
from videomae_fast.recipes.plain import FORMAT, changed, from_plain, to_plain
from videomae_fast.recipes.schema import PretrainConfig
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


def test_the_format_before_is_read(config: PretrainConfig, tmp_path: Path) -> None:
    """All fields in one level, as version 0.1.0 wrote them; later ones take their defaults."""
    flat: dict[str, Any] = {
        "size": "base", "image_size": [32, 64], "frames": 16, "width": 96, "heads": 3,
        "encoder_mask": "tube", "encoder_mask_ratio": 0.75, "normalize_target": False,
        "data": [
            {"path": "a.csv", "root": str(tmp_path), "weight": 2.0, "stride": 2,
             "name_pattern": "img_{:05}.jpg", "contains": None, "excludes": ["x"], "only": None,
             "format": "pretrain", "first_frame": 1, "name": None}
        ],
        "data_format": "plain", "samples_per_video": 4, "betas": [0.8, 0.9], "epochs": 200,
    }  # fmt: skip
    assert from_plain(PretrainConfig, json.loads(json.dumps(flat))) == config


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
        "data.lists": (Source(Path("a")),), "run.seed": 2**62, "masks.encoder_ratio": 0.5,
        "model.drop_path": 0.5, "data.max_failed_share": 0.5, "optim.min_lr": 1e-4,
            "schedule.warmup_epochs": 3,
    }  # fmt: skip
    for name, setting in settings(PretrainConfig).items():
        kinds = {bool: not setting.default, int: 240, float: 7.5, str: "x"}
        kind = setting.plain_kinds[0]
        value = setting.choices[-1] if setting.choices else other.get(name, kinds.get(kind))
        config = changed(PretrainConfig(), {name: value})
        assert config != PretrainConfig(), name
        assert from_plain(PretrainConfig, json.loads(json.dumps(to_plain(config)))) == config
