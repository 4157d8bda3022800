"""The config's checks, its way to JSON and back, and its agreement with the rest of the package."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from videomae_fast.data import Source
from videomae_fast.errors import UsageError
from videomae_fast.models import config as models
from videomae_fast.ops.mask_indices import DECODER_KINDS, ENCODER_KINDS
from videomae_fast.training import PretrainConfig
from videomae_fast.training import config as training


def test_through_json_and_back(tmp_path: Path) -> None:
    source = Source(Path("a.csv"), tmp_path, weight=2.0, stride=2, excludes=("x",))
    config = PretrainConfig(
        image_size=(32, 64), data=(source,), betas=(0.8, 0.9), width=96, heads=3
    )
    assert PretrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown field 'base_lrr'; did you mean base_lr\?"):
        PretrainConfig.from_dict({"base_lrr": 1.0})
    with pytest.raises(UsageError, match="unknown option of a data list: wieght"):
        PretrainConfig.from_dict({"data": [{"path": "a", "wieght": 1}]})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": "tiny"}, "size 'tiny' is none of small"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"epochs": 10, "warmup_epochs": 11}, "warmup_epochs .11. is longer than epochs"),
        ({"epochs": "10"}, "epochs must be a whole number"),
        ({"compile": 1}, "compile must be true or false"),
        ({"base_lr": float("nan")}, "base_lr must be a finite number"),
        ({"base_lr": 1e-6}, "min_lr .* is above base_lr"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"betas": (0.9,)}, "betas"),
        ({"image_size": 30}, "patch_size 16"),
        ({"frames": 15}, "tubelet_size 2"),
        ({"heads": 7}, "not a multiple of heads"),
        ({"encoder_mask_ratio": 1.5}, "encoder mask ratio"),
        ({"decoder_mask_ratio": 0.6}, "0.25, 0.5 or 0.75"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"seed": 2**63}, "seed .* must be below"),
        ({"data_format": "hybrid"}, "data_format 'hybrid'"),
    ],
)
def test_bad_values_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PretrainConfig(**values)


def test_no_list_and_options_of_a_hybrid_list_are_refused() -> None:
    with pytest.raises(UsageError, match="--data LIST"):
        PretrainConfig().sources()
    source = Source(Path("a.csv"), weight=2.0)
    with pytest.raises(UsageError, match="takes no option but root"):
        PretrainConfig(data=(source,), data_format="unlabeled-hybrid").sources()


def test_every_field_is_documented() -> None:
    for one in fields(PretrainConfig):
        assert one.metadata["help"], one.name


def test_choices_are_those_of_the_package() -> None:
    by_name = {one.name: one.metadata["choices"] for one in fields(PretrainConfig)}
    assert training.SIZES == models.SIZES
    assert by_name["encoder_mask"] == ENCODER_KINDS
    assert set(by_name["decoder_mask"]) == set(DECODER_KINDS)
    missing = {one.name for one in fields(models.MAEConfig)} - set(by_name)
    assert not missing, "every field of the model's config can be set"


def test_fields_override_the_size(tiny: Callable[..., PretrainConfig]) -> None:
    model = tiny().model_config()
    assert (model.width, model.depth, model.decoder_width, model.mlp_ratio) == (32, 1, 16, 4.0)
