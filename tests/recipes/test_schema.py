"""The sections: every field is declared whole, and checked by what it declares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from videomae_fast.data.lists import EXPECTED
from videomae_fast.errors import UsageError
from videomae_fast.models import config as models
from videomae_fast.ops.mask_indices import DECODER_KINDS, ENCODER_KINDS
from videomae_fast.recipes.fields import Config, SettingError, sections, settings, settings_of
from videomae_fast.recipes.kinds import KINDS
from videomae_fast.recipes.plain import by_flat_name, changed
from videomae_fast.recipes.schema import Data, Model, Optim, PretrainConfig, Schedule
from videomae_fast.recipes.source import Source

ALL = settings(PretrainConfig)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in KINDS.values() for name in settings(kind)]
)
def test_every_field_is_declared_whole(kind: type[Config], name: str) -> None:
    one = settings(kind)[name]
    assert one.option.text
    assert one.meaning.startswith(one.option.text)
    assert one.values
    one.check(one.default)
    assert name == f"{one.section}.{one.field}"


@pytest.mark.parametrize("kind", KINDS.values())
def test_names_of_options_are_unique(kind: type[Config]) -> None:
    assert len(by_flat_name(kind)) == len(settings(kind))


def test_a_section_is_named_like_its_class() -> None:
    for name, section in sections(PretrainConfig).items():
        assert section.__name__.lower() == name
        assert {one.section for one in settings_of(section, name)} == {name}


def test_choices_are_those_of_the_package() -> None:
    assert ALL["model.size"].choices == models.SIZES
    assert ALL["masks.encoder"].choices == ENCODER_KINDS
    assert set(ALL["masks.decoder"].choices or ()) == set(DECODER_KINDS)
    assert {one.field: one.choices for one in settings_of(Source)}["format"] == tuple(EXPECTED)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model.size": "tiny"}, "model.size 'tiny' is none of small"),
        ({"schedule.epochs": 0}, "schedule.epochs must be at least 1, not 0"),
        (
            {"schedule.epochs": 10, "schedule.warmup_epochs": 11},
            "schedule.warmup_epochs .11. is longer than schedule.epochs .10.: lower the first",
        ),
        ({"schedule.epochs": "10"}, "schedule.epochs must be a whole number, not '10'"),
        ({"schedule.epochs": None}, "schedule.epochs must be a whole number, not None"),
        ({"schedule.epochs": 2.0}, "schedule.epochs must be a whole number, not 2.0"),
        ({"schedule.epochs": True}, "schedule.epochs must be a whole number, not True"),
        ({"run.compile": 1}, "run.compile must be true or false, not 1"),
        ({"optim.base_lr": float("nan")}, "optim.base_lr must be a finite number, not nan"),
        ({"optim.base_lr": 1e-6}, "optim.min_lr .* is above optim.base_lr"),
        ({"optim.betas": (0.9, 1.0)}, "optim.betas must be below 1, not 1.0"),
        ({"optim.betas": (0.9,)}, r"optim.betas must be 2 numbers, not \(0.9,\)"),
        ({"model.image_size": (1, 2, 3)}, "model.image_size must be a whole number or 2 whole"),
        ({"masks.encoder_ratio": 1.5}, "masks.encoder_ratio must be below 1, not 1.5"),
        ({"model.drop_path": 1.0}, "model.drop_path must be below 1"),
        ({"run.seed": 2**63}, "run.seed must be below 9223372036854775808"),
        ({"data.format": "hybrid"}, "data.format 'hybrid' is none of plain"),
        ({"data.decode_timeout": 0}, "data.decode_timeout must be above 0"),
        ({"data.max_failed_share": 1.1}, "data.max_failed_share must be at most 1"),
        ({"data.lists": ("a.csv", 3)}, "data.lists must be a list of data lists"),
        ({"data.cache": "x", "data.device_decoder": "dali"}, "exclude each other"),
    ],
)
def test_bad_values_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        changed(PretrainConfig(), values)
    assert isinstance(caught.value, SettingError)
    assert caught.value.name in {*values, "optim.min_lr", "schedule.warmup_epochs", "data.cache"}


def test_a_section_stands_in_its_place() -> None:
    with pytest.raises(UsageError, match=r"model must be a Model\(\.\.\.\) section"):
        PretrainConfig(model=Optim())  # type: ignore[arg-type]
    config = PretrainConfig(model=Model(size="small"), schedule=Schedule(epochs=30))
    assert (config.model.size, config.schedule.epochs, config.optim) == ("small", 30, Optim())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight": 0.0}, r"a\.csv: weight must be above 0, not 0.0"),
        ({"weight": "3"}, r"a\.csv: weight must be a number, not '3'"),
        ({"stride": 0}, r"a\.csv: stride must be at least 1"),
        ({"only": "pictures"}, r"a\.csv: only 'pictures' is none of videos, folders"),
        ({"name_pattern": "x.jpg"}, r"a\.csv: name_pattern 'x.jpg' has no place"),
    ],
)
def test_a_list_names_itself(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Data(lists=(Source(Path("a.csv"), **values),))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run.shard": "half"}, "run.shard is 'half': none, node, all or a number"),
        ({"run.shard": "0"}, "run.shard is '0'"),
        ({"run.reshard": "yes"}, "run.reshard yes is for sharded weights"),
        ({"run.shard": "1", "run.reshard": "no"}, "run.reshard no is for sharded weights"),
    ],
)
def test_what_sharding_can_be(changes, said):
    with pytest.raises(UsageError, match=said):
        changed(PretrainConfig(), changes)
    assert changed(PretrainConfig(), {"run.shard": "8", "run.reshard": "yes"}).run.shard == "8"
