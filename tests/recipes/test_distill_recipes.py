"""Distillation: its section, what contradicts what, and the package's recipes."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from videomae_fast.errors import UsageError
from videomae_fast.recipes import DistillConfig, FinetuneConfig, from_plain, to_plain
from videomae_fast.recipes.catalogue import FACTS, names, recipe
from videomae_fast.recipes.fields import settings
from videomae_fast.recipes.load import load
from videomae_fast.recipes.plain import changed

SCORES = {"vit_s_k710_from_g": "77.6", "vit_b_k710_from_g": "81.5"}


def test_there_are_no_others_and_no_name_serves_twice() -> None:
    assert set(names("distill")) == set(SCORES)
    assert not set(names("distill")) & {*names("finetune"), *names("pretrain")}


@pytest.mark.parametrize("name", SCORES)
def test_they_are_fine_tuning_on_k710_for_twice_as_long(name: str) -> None:
    c, tuned = load(DistillConfig, name), load(FinetuneConfig, "vit_b_k710_ft")
    assert c.schedule.epochs == 2 * tuned.schedule.epochs
    assert c.model.size == {"s": "small", "b": "base"}[name[4]]
    same = {"model.size": "base", "schedule.epochs": 90}
    as_tuned = changed(c, same)
    for section in fields(tuned):
        assert getattr(as_tuned, section.name) == getattr(tuned, section.name), section.name
    own = c.distillation
    assert (own.mode, own.temperature, own.label_share) == ("logits", 1.0, 0.0)


@pytest.mark.parametrize("name", SCORES)
def test_each_says_what_it_is(name: str) -> None:
    one = recipe("distill", name)
    assert one.title.startswith("VideoMAE V2 ViT-")
    assert set(one.facts) == set(FACTS)
    assert all(one.facts.values())
    assert f" distill --recipe {name} --data " in one.facts["command"]
    assert " --teacher vit_g_k710.pth " in one.facts["command"]
    assert f"K710 {SCORES[name]} top-1" in one.facts["expected"]
    assert "2106.05237" in one.facts["source"]
    assert "ours" in one.file.read_text(encoding="utf-8")


def test_it_has_all_fields_of_fine_tuning() -> None:
    assert set(settings(FinetuneConfig)) < set(settings(DistillConfig))


def test_it_is_written_and_read() -> None:
    made = changed(DistillConfig(), {"distillation.teacher": "g.pth", "distillation.layers": None})
    assert from_plain(DistillConfig, to_plain(made)) == made
    with pytest.raises(UsageError, match="unknown section 'distillation'"):
        from_plain(FinetuneConfig, to_plain(made))


STORED = {"distillation.outputs": "o", "mix.mixup": 0.0, "mix.cutmix": 0.0}
FEATURES = {"distillation.mode": "features"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"distillation.label_share": 1.0}, r"distillation\.label_share must be below 1"),
        ({"distillation.temperature": 0.0}, r"distillation\.temperature must be above 0"),
        ({**FEATURES, "distillation.temperature": 2.0}, "softens logits"),
        ({"distillation.layers": 2}, "are aligned in mode features alone"),
        ({"distillation.views": 2}, "are those of stored outputs"),
        ({"distillation.outputs": "o"}, "is not the mixture of what it says of the two"),
        ({**STORED, "mix.cutmix": 1.0}, "can't be mixed"),
        ({**STORED, **FEATURES}, "vectors of every token, which are not stored"),
        ({**STORED, "data.device_decoder": "dali"}, "set it to none"),
        ({"optim.class_weights": "balanced"}, r"optim\.class_weights would weigh nothing"),
        ({**FEATURES, "data.validation": [{"path": "v.csv"}]}, "does not train the head"),
    ],
)
def test_what_contradicts_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        changed(DistillConfig(), values)


def test_what_does_not_contradict_is_taken() -> None:
    for values in (STORED, FEATURES, {**FEATURES, "distillation.label_share": 0.5}):
        changed(DistillConfig(), values)
