"""The recipes for a few clips: what the study of gestures measured, said and to be had by name."""

from __future__ import annotations

import pytest

from benchmarks.gestures.arms import FULL
from videomae_fast.recipes import FinetuneConfig, PretrainConfig, changed
from videomae_fast.recipes.catalogue import FACTS, recipe
from videomae_fast.recipes.load import load


def test_they_are_what_was_measured() -> None:
    pretraining = {**FULL.model, **FULL.pretraining}
    assert load(PretrainConfig, "few_clips") == changed(PretrainConfig(), pretraining)
    finetuning = {**FULL.model, **FULL.finetuning}
    assert load(FinetuneConfig, "few_clips_ft") == changed(FinetuneConfig(), finetuning)


@pytest.mark.parametrize(
    ("task", "name"), [("pretrain", "few_clips"), ("finetune", "few_clips_ft")]
)
def test_each_says_what_it_is(task: str, name: str) -> None:
    one = recipe(task, name)
    assert set(one.facts) == set(FACTS)
    assert all(one.facts.values())
    assert f" {task} --recipe {name} --data " in one.facts["command"]
    assert "python -m benchmarks gestures" in one.facts["source"]
