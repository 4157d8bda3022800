"""Fine-tuning: its sections, and the package's recipes against the papers' and scripts' table."""

from __future__ import annotations

from typing import Any

import pytest

from videomae_fast.errors import UsageError
from videomae_fast.models.config import MAEConfig
from videomae_fast.recipes.catalogue import FACTS, names, recipe
from videomae_fast.recipes.classification import FinetuneConfig, Mix
from videomae_fast.recipes.fields import settings
from videomae_fast.recipes.load import load
from videomae_fast.recipes.plain import changed

ALL = settings(FinetuneConfig)
SIZES = {"s": "small", "b": "base", "l": "large", "h": "huge", "g": "giant"}
TABLE = {
    # GPUs, videos of each, base lr, drop path, layer decay, epochs, weight decay, head dropout
    "vit_g_k710_ft": (32, 3, 1e-3, 0.3, 0.9, 35, 0.1, 0.0),
    "vit_g_k400_ft": (64, 3, 1e-3, 0.2, 0.9, 30, 0.1, 0.0),
    "vit_g_k400_after_k710_ft": (32, 3, 1e-5, 0.25, 0.9, 3, 0.1, 0.0),
    "vit_g_k600_after_k710_ft": (32, 3, 1e-5, 0.25, 0.9, 3, 0.1, 0.0),
    "vit_g_ssv2_ft": (32, 3, 3e-4, 0.25, 0.9, 20, 0.05, 0.0),
    "vit_g_ucf101_after_k710_ft": (8, 3, 1e-3, 0.35, 0.9, 50, 0.05, 0.5),
    "vit_g_hmdb51_after_k710_ft": (8, 3, 5e-4, 0.35, 0.9, 15, 0.05, 0.5),
    "vit_h_k400_ft": (32, 4, 1e-3, 0.2, 0.8, 40, 0.05, 0.5),
    "vit_h_k600_ft": (32, 4, 1e-3, 0.2, 0.8, 40, 0.05, 0.5),
    "vit_h_k710_ft": (32, 4, 1e-3, 0.2, 0.8, 40, 0.05, 0.5),
    "vit_h_ssv2_ft": (32, 4, 5e-4, 0.2, 0.8, 20, 0.05, 0.0),
    "vit_l_k400_ft": (32, 6, 2e-3, 0.2, 0.75, 35, 0.05, 0.0),
    "vit_l_ssv2_ft": (32, 6, 5e-4, 0.2, 0.75, 20, 0.05, 0.0),
    "vit_b_k400_ft": (32, 16, 7e-4, 0.1, 0.75, 90, 0.05, 0.0),
    "vit_b_k710_ft": (32, 16, 7e-4, 0.1, 0.75, 90, 0.05, 0.0),
    "vit_b_k400_after_k710_ft": (32, 16, 1e-5, 0.1, 0.75, 3, 0.05, 0.0),
    "vit_b_k600_after_k710_ft": (32, 16, 1e-5, 0.1, 0.75, 3, 0.05, 0.0),
    "vit_s_k400_after_k710_ft": (32, 16, 1e-5, 0.1, 0.75, 3, 0.05, 0.0),
    "vit_s_k600_after_k710_ft": (32, 16, 1e-5, 0.1, 0.75, 3, 0.05, 0.0),
    "vit_b_ssv2_ft": (16, 16, 2e-3, 0.1, 0.65, 25, 0.05, 0.0),
    "vit_b_ucf101_ft": (8, 16, 5e-4, 0.2, 0.7, 100, 0.05, 0.5),
}


def test_there_are_no_others_and_no_name_serves_twice() -> None:
    own = {"few_clips_ft"}  # tests/recipes/test_few_clips.py
    assert set(names("finetune")) == {*TABLE, *own}
    assert not set(names("finetune")) & set(names("pretrain"))


@pytest.mark.parametrize("name", TABLE)
def test_values(name: str) -> None:
    c = load(FinetuneConfig, name)
    gpus, each, lr, drop_path, layer_decay, epochs, weight_decay, head_dropout = TABLE[name]
    assert (c.optim.videos_per_step, c.optim.base_lr) == (gpus * each, lr)
    assert (c.model.drop_path, c.model.head_dropout) == (drop_path, head_dropout)
    assert (c.optim.layer_decay, c.optim.weight_decay) == (layer_decay, weight_decay)
    warmup = 1 if "k400_after" in name or "k600_after" in name else 5
    assert (c.schedule.epochs, c.schedule.warmup_epochs) == (epochs, warmup)
    assert (c.optim.betas, c.data.samples, c.mix, c.model.init_scale) == (
        (0.9, 0.999), 2, Mix(), 1e-3,
    )  # fmt: skip
    assert (c.optim.clip_grad, c.optim.ema_decay) == (5.0 if name == "vit_g_k710_ft" else 0.0, 0.0)
    assert c.optim.min_lr == (1e-5 if name == "vit_b_ucf101_ft" else 1e-6)
    something = "ssv2" in name
    assert (c.data.sampling, c.augment.flip) == (("sparse", 0.0) if something else ("dense", 0.5))
    assert c.data.stride == (2 if "hmdb51" in name else 4)
    assert c.data.classes == next(
        (f"kinetics-{n}" for n in (400, 600, 710) if name[5:].startswith(f"_k{n}_")), None
    )


@pytest.mark.parametrize("name", TABLE)
def test_each_says_what_it_is(name: str) -> None:
    one = recipe("finetune", name)
    assert one.title.startswith("VideoMAE")
    assert set(one.facts) == set(FACTS)
    assert all(one.facts.values())
    assert f" finetune --recipe {name} --data " in one.facts["command"]
    assert f"{TABLE[name][0]} GPUs x {TABLE[name][1]} videos" in one.title
    size = load(FinetuneConfig, name).model.size
    assert size == SIZES[name[4]]
    assert MAEConfig.from_size(size)


def test_no_field_is_there_that_nothing_reads() -> None:
    assert not {"model.decoder_depth", "model.encoder_norm", "data.format", "masks.encoder"} & set(
        ALL
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model.image_size": (32, 64)}, "clips of a classifier are squares"),
        ({"schedule.patience": 2}, r"data\.validation names no list"),
        ({"mix.mixup": 9.0}, "mix.mixup must be at most 8"),
        ({"model.drop_path": 1.0}, "model.drop_path must be below 1"),
        ({"data.sampling": "thin"}, "data.sampling 'thin' is none of dense, sparse"),
        ({"data.validation": ("a.csv", 3)}, "data.validation must be a list of data lists"),
        ({"optim.layer_decay": 0.0}, "optim.layer_decay must be above 0"),
    ],
)
def test_bad_values_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        changed(FinetuneConfig(), values)
