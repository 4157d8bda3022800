"""Detection: its sections, and the package's recipes against the official table."""

from __future__ import annotations

from typing import Any

import pytest

from videomae_fast.errors import UsageError
from videomae_fast.models.config import MAEConfig
from videomae_fast.recipes.box_source import BoxSource
from videomae_fast.recipes.catalogue import FACTS, names, recipe
from videomae_fast.recipes.detection import BoxAugment, DetectConfig
from videomae_fast.recipes.load import load
from videomae_fast.recipes.plain import changed, from_plain, to_plain

SIZES = {"s": "small", "b": "base", "l": "large", "h": "huge"}
TABLE = {
    # GPUs, clips of each, base lr, layer decay, epochs, mAP
    "vit_s_ava": (16, 8, 1e-3, 0.6, 30, 22.5),
    "vit_b_ava": (32, 4, 2.5e-4, 0.75, 30, 26.7),
    "vit_l_ava": (32, 4, 2.5e-4, 0.75, 30, 34.3),
    "vit_h_ava": (64, 2, 5e-4, 0.8, 20, 36.5),
    "vit_s_ava_after_k400": (16, 8, 5e-4, 0.6, 30, 28.4),
    "vit_b_ava_after_k400": (32, 4, 5e-4, 0.75, 30, 31.8),
    "vit_l_ava_after_k400": (32, 4, 5e-4, 0.8, 20, 37.0),
    "vit_h_ava_after_k400": (64, 2, 5e-4, 0.8, 20, 39.5),
    "vit_l_ava_after_k700": (32, 4, 5e-4, 0.8, 20, 39.3),
}
KINETICS = {"vit_b_ava_kinetics": 33.6, "vit_l_ava_kinetics": 38.7}


def test_there_are_no_others_and_no_name_serves_twice() -> None:
    assert set(names("detect")) == set(TABLE) | set(KINETICS)
    assert not set(names("detect")) & {*names("pretrain"), *names("finetune")}


@pytest.mark.parametrize("name", TABLE)
def test_values(name: str) -> None:
    c = load(DetectConfig, name)
    gpus, each, lr, layer_decay, epochs, _ = TABLE[name]
    assert (c.optim.videos_per_step, c.optim.base_lr) == (gpus * each, lr)
    assert (c.optim.layer_decay, c.schedule.epochs) == (layer_decay, epochs)
    assert (c.schedule.warmup_epochs, c.optim.weight_decay, c.optim.min_lr) == (5, 0.05, 1e-6)
    assert (c.optim.betas, c.optim.clip_grad, c.optim.mean_over) == ((0.9, 0.999), 0.0, "clips")
    assert (c.model.drop_path, c.model.head_dropout, c.model.init_scale) == (0.2, 0.0, 1e-3)
    assert (c.model.bins, c.model.sampling_ratio, c.model.aligned) == (7, 0, False)
    assert (c.model.image_size, c.model.frames, c.model.pixels) == (224, 16, "slowfast")
    assert (c.data.stride, c.data.short_side, c.data.classes, c.data.samples) == (4, 256, 80, 1)
    assert (c.data.person_score, c.data.max_boxes, c.data.widened) == (0.8, 100, (0.1, 0.05))
    assert c.augment == BoxAugment()
    assert c.augment.boxes == "repaired"


@pytest.mark.parametrize("name", KINETICS)
def test_ava_kinetics(name: str) -> None:
    c = load(DetectConfig, name)
    assert c.optim.base_lr * 64 / 256 == 1.25e-4
    assert (c.optim.videos_per_step, c.optim.clip_grad, c.optim.mean_over) == (64, 40.0, "boxes")
    assert (c.model.image_size, c.model.bins, c.model.aligned) == (256, 8, True)
    assert (c.model.pixels, c.model.head_dropout, c.model.drop_path) == ("imagenet", 0.5, 0.2)
    assert (c.data.add_proposals, c.data.max_boxes, c.data.person_scores_count) == (0.9, 32, False)
    assert (c.data.short_side, c.data.longest_short_side) == (256, 320)
    assert (c.augment.hue, c.augment.outwards, c.augment.inwards) == (0, (0.0, 0.0), (0.0, 0.0))
    assert (c.schedule.epochs, c.schedule.warmup_epochs, c.optim.layer_decay) == (20, 5, 0.75)


@pytest.mark.parametrize("name", [*TABLE, *KINETICS])
def test_each_says_what_it_is(name: str) -> None:
    one = recipe("detect", name)
    assert one.title.startswith("VideoMAE")
    assert set(one.facts) == set(FACTS)
    assert all(one.facts.values())
    assert f" detect train --recipe {name} --data " in one.facts["command"]
    expected = TABLE[name][5] if name in TABLE else KINETICS[name]
    assert one.facts["expected"] == f"mAP {expected}"
    gpus, each = TABLE[name][:2] if name in TABLE else (8, 8)
    assert f"{gpus} GPUs x {each} clips" in one.title
    words = one.facts["command"].split()
    assert int(words[2]) * int(words[4]) == gpus
    size = load(DetectConfig, name).model.size
    assert size == SIZES[name[4]]
    assert MAEConfig.from_size(size)


def test_lists_go_to_plain_values_and_back() -> None:
    lists = ("a.csv", {"path": "b.json", "root": "r", "proposals": "p.json", "fps": 25.0})
    config = changed(DetectConfig(), {"data.validation": lists})
    again = from_plain(DetectConfig, to_plain(config))
    assert again == config
    assert [one.is_json for one in again.data.validation] == [False, True]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model.image_size": (32, 64)}, "training cuts squares"),
        ({"model.image_size": 288}, r"is cut out of frames whose short side is data\.short_side"),
        ({"data.longest_short_side": 200}, "is below data.short_side"),
        (
            {"data.device_decoder": "dali", "data.lists": ({"path": "a.csv", "per_second": True},)},
            "of per_second lists lie in several",
        ),
        ({"schedule.patience": 2}, r"data\.validation names no list"),
        ({"data.add_proposals": 0.9, "data.lists": ("a.csv",)}, "a training list has none"),
        ({"data.lists": ({"path": "a.csv", "proposals": "p.csv"},)}, "training reads no proposals"),
        ({"data.lists": ({"path": "a.csv", "stride": 2},)}, "unknown option of a data list: stri"),
        ({"data.lists": ({"path": "a.csv", "fps": 0.0},)}, "fps must be above 0"),
        ({"data.lists": ({"path": "a.csv", "name_pattern": "a.jpg"},)}, "no place for the frame"),
    ],
)
def test_bad_values_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        changed(DetectConfig(), values)


def test_a_pattern_may_name_the_video() -> None:
    assert BoxSource("a.csv", name_pattern="{video}_{:06}.jpg").name_pattern  # type: ignore[arg-type]
