"""Plans as files: what they say, what wins, and what is refused in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from videomae_fast.errors import UsageError
from videomae_fast.recipes import FinetuneConfig, PretrainConfig, changed, load
from videomae_fast.recipes.catalogue import FACTS, names, recipe
from videomae_fast.recipes.multi_view import TestConfig
from videomae_fast.recipes.plan import FOLDER, Plan, read_plan

TWO = """
[common.run]
seed = 3

[[stages]]
name = "a"
task = "pretrain"
recipe = "vit_b_hybrid"
set.data.lists = ["a.csv"]

[[stages]]
name = "b"
task = "finetune"
recipe = "vit_b_k400_ft"
set.data.lists = ["b.csv", { path = "c.csv", format = "folder-labels" }]
set.optim.base_lr = 1e-4
"""


def plan(folder: Path, text: str, *overrides: str) -> Plan:
    file = folder / "plan.toml"
    file.write_text(text)
    return read_plan(file, overrides)


@pytest.mark.parametrize("name", names(FOLDER))
def test_plans_of_the_package(name: str) -> None:
    facts = recipe(FOLDER, name).facts
    assert set(facts) == set(FACTS)
    stages = read_plan(name).stages
    assert [stage.name for stage in stages][:3] == ["hybrid", "k710", "k710-test"]
    for stage in stages:
        if isinstance(stage.config, TestConfig):
            assert (stage.config.views.segments, stage.config.views.crops) == (5, 3)
            assert stage.name == f"{stage.source}-test"
            continue
        assert stage.recipe is not None
        lists = {"data.lists": (), "data.validation": ()}
        if isinstance(stage.config, FinetuneConfig):
            bare = changed(stage.config, lists)
            assert bare == load(FinetuneConfig, stage.recipe)
            assert [one.format for one in stage.config.data.lists] == ["labels"]
            assert stage.source == ("hybrid" if stage.name == "k710" else "k710")
        else:
            assert changed(stage.config, {"data.lists": ()}) == load(PretrainConfig, stage.recipe)
            assert stage.source is None


def test_what_wins(tmp_path: Path) -> None:
    first, second = plan(tmp_path, TWO).stages
    assert first.config.run.device == second.config.run.device == "auto"  # type: ignore[union-attr]
    assert (second.source, second.weights) == ("a", "last")
    assert isinstance(second.config, FinetuneConfig)
    assert second.config.run.seed == 3
    assert second.config.optim.base_lr == 1e-4
    assert [one.format for one in second.config.data.lists] == ["labels", "folder-labels"]
    assert second.config.schedule == load(FinetuneConfig, "vit_b_k400_ft").schedule
    told = plan(tmp_path, TWO, "optim.base_lr=2e-4", "b.optim.base_lr=3e-4", "run.seed=5").stages
    assert [stage.config.optim.base_lr for stage in told] == [2e-4, 3e-4]  # type: ignore[union-attr]
    assert [stage.config.run.seed for stage in told] == [5, 5]  # type: ignore[union-attr]


TEST = '[[stages]]\nname = "t"\ntask = "test"\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "names no stages"),
        ("stages = 3", "names no stages"),
        ("[stage]\n", "unknown key 'stage'; did you mean stages"),
        ("[[stages]\n", "no TOML"),
        (TWO.replace('name = "b"', 'name = "a"'), "stage 'a': is there twice"),
        (TWO.replace('name = "b"', 'name = "../b"'), "needs a name of letters"),
        (TWO.replace('"finetune"', '"tune"'), "stage 'b': task 'tune' is none of pretrain, fin"),
        (TWO.replace("vit_b_k400_ft", "vit_b_k40_ft"), "stage 'b': no recipe 'vit_b_k40_ft'; did"),
        (TWO.replace("base_lr", "base_rl"), "stage 'b': unknown field 'optim.base_rl'; did you"),
        (TWO.replace("1e-4", '"fast"'), "stage 'b': optim.base_lr must be a number, not 'fast'"),
        (TWO.replace("seed", "sead"), "common.run.sead is a field of no stage; did you mean"),
        (TWO + 'from = "z"', "stage 'b': from = 'z' is no training stage before it; there are a"),
        (TWO + 'weights = "best"', "stage 'a' validates nothing, so it has no best weights"),
        (TWO + 'set.model.init = "w.pth"', "model.init would not be read"),
        (TWO + "form = 1", "stage 'b': unknown key 'form'; did you mean from"),
        (TEST, "no stage before it trains"),
        (TWO.split('[[stages]]\nname = "b"')[0] + TEST, "'a' pre-trains and has no classes"),
        (TWO + TEST + 'recipe = "vit_b_k400_ft"', "stage 't': recipe: a test has none"),
    ],
)
def test_what_is_refused(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        plan(tmp_path, text)
    assert told in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "plan.toml"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("optim.base_lr", "has no value"),
        ("optim.base_rl=1", "is a field of no stage; did you mean optim.base_lr"),
        ("a.mix.mixup=0", "--set a.mix.mixup=0: the stage has no field mix.mixup"),
        ("optim.base_lr=fast", "stage 'a': --set optim.base_lr=fast: optim.base_lr must be"),
    ],
)
def test_overrides_that_are_refused(given: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        plan(tmp_path, TWO, given)
    assert told in str(caught.value)


def test_a_stage_may_begin_from_other_weights(tmp_path: Path) -> None:
    text = TWO + 'from = "none"\nset.model.init = "released.pth"'
    stage = plan(tmp_path, text)["b"]
    assert stage.source is None
    assert isinstance(stage.config, FinetuneConfig)
    assert stage.config.model.init == "released.pth"
