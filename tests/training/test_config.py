"""The configuration in one level, for one version; and what rooms make of sections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import altered
from videomae_fast import training
from videomae_fast.data import Source
from videomae_fast.data.lists.sources import sources_of
from videomae_fast.errors import UsageError
from videomae_fast.masks.spec import mask_spec
from videomae_fast.models.config import MAEConfig, mae_config
from videomae_fast.recipes import Data, Model, PretrainConfig, from_plain, load, to_plain
from videomae_fast.recipes.catalogue import names
from videomae_fast.recipes.fields import settings
from videomae_fast.tasks.pretraining import grid_and_masks
from videomae_fast.training import pretrain
from videomae_fast.training.config import MOVED

Make = Callable[..., PretrainConfig]


def test_the_former_names_are_taken_with_a_warning() -> None:
    source = Source(Path("a.csv"))
    with pytest.warns(DeprecationWarning, match=r"base_lr is optim.base_lr, data is data.lists"):
        config = training.PretrainConfig(base_lr=0.5, data=(source,))
    new = altered(PretrainConfig(), base_lr=0.5, data=(source,))
    assert config == new
    assert new == config
    assert hash(config) == hash(new)
    assert isinstance(config, PretrainConfig)
    with pytest.warns(DeprecationWarning, match=r"base_lr is optim.base_lr"):
        assert config.base_lr == 0.5
    with pytest.warns(DeprecationWarning, match=r"epochs is schedule.epochs"):
        longer = replace(config, epochs=300)
    assert longer == altered(new, epochs=300)
    assert longer != config
    assert from_plain(PretrainConfig, config.to_dict()) == new
    written = training.PretrainConfig.from_dict({"base_lr": 0.5, "data": [{"path": "a.csv"}]})
    assert written == altered(new, order="table")  # the only one there was


def test_mistakes_of_the_former_names() -> None:
    with pytest.raises(UsageError, match=r"unknown field 'base_lrr'; did you mean base_lr\?"):
        training.PretrainConfig(base_lrr=1.0)
    config = training.PretrainConfig()
    for name in MOVED:
        with pytest.raises(AttributeError, match=rf"no attribute '{name}': it is videomae_fast\."):
            getattr(config, name)
    with pytest.raises(AttributeError, match=r"no attribute 'bases'$"):
        _ = config.bases


def test_the_former_recipes() -> None:
    assert list(training.RECIPES) == names("pretrain")
    with pytest.warns(DeprecationWarning, match="videomae_fast.recipes.load"):
        config = training.RECIPES["vit_g_hybrid"]()
    assert config == load(PretrainConfig, "vit_g_hybrid")


def test_a_run_takes_either(tiny: Make, tmp_path: Path) -> None:
    new = tiny(epochs=1, warmup_epochs=0)
    former = training.PretrainConfig(**{one.name: getattr(new, one.name) for one in fields(new)})
    done = pretrain(former, output=tmp_path, log=lambda _: None)
    said: list[str] = []
    pretrain(new, output=tmp_path, log=said.append)
    assert said[-1] == f"nothing left to do: all {done.steps} steps were done"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_size": 30}, "patch_size 16"),
        ({"frames": 15}, "tubelet_size 2"),
        ({"heads": 7}, "not a multiple of heads"),
        ({"encoder_mask_ratio": 0.001}, "encoder mask"),
        ({"decoder_mask_ratio": 0.6}, "0.25, 0.5 or 0.75"),
    ],
)
def test_a_model_and_masks_that_do_not_fit_end_before_the_run(
    values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = altered(PretrainConfig(), data=(Source(Path("none.csv")),), **values)
    with pytest.raises(UsageError, match=message):
        pretrain(config, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_list_and_options_of_a_hybrid_list_are_refused() -> None:
    with pytest.raises(UsageError, match="--data LIST"):
        sources_of(Data())
    source = Source(Path("a.csv"), weight=2.0)
    with pytest.raises(UsageError, match="takes no option but root"):
        sources_of(Data(lists=(source,), format="unlabeled-hybrid"))


def test_every_field_of_the_models_config_can_be_set(tiny: Make) -> None:
    declared = {one.field for one in settings(PretrainConfig).values() if one.section == "model"}
    assert {one.name for one in fields(MAEConfig)} <= declared
    model = mae_config(tiny().model)
    assert (model.width, model.depth, model.decoder_width, model.mlp_ratio) == (32, 1, 16, 4.0)
    assert mae_config(Model(size="giant")) == MAEConfig.from_size("giant")


@pytest.mark.parametrize("name", names("pretrain"))
def test_what_the_encoder_sees_with_a_recipe(name: str) -> None:
    """Counts of the papers: visible tokens of 1,568, or of 2,048 with patch 14."""
    config = load(PretrainConfig, name)
    grid, spec = grid_and_masks(config)
    assert spec == mask_spec(config.masks)
    others = {"vit_g_hybrid": 208, "vit_b_ucf101": 392, "few_clips": 64}
    assert spec.counts(grid).visible == others.get(name, 160)


def test_plain_values_of_the_former_are_those_of_the_new() -> None:
    assert training.PretrainConfig().to_dict() == to_plain(PretrainConfig())
