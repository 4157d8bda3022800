"""Sections are shared: another task has some of them, some of its own, and the same loading."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from videomae_fast.cli.options import add_fields, given
from videomae_fast.errors import UsageError
from videomae_fast.recipes import Model, Optim, Schedule, from_plain, load, to_plain
from videomae_fast.recipes.fields import Config, Section, option, settings


@dataclass(frozen=True)
class Augment(Section):
    """What is done to clips."""

    mixup: float = option(0.8, "alpha of mixup", least=0)


@dataclass(frozen=True)
class ClassifierOptim(Optim):
    """The step, with layer decay."""

    layer_decay: float = option(0.75, "factor of the rate from a layer to the one below", above=0)
    betas: tuple[float, float] = option((0.9, 0.999), "AdamW's two decay rates", least=0, below=1)


@dataclass(frozen=True)
class Classification(Config):
    task: ClassVar[str] = "classify"

    model: Model = field(default_factory=Model)
    augment: Augment = field(default_factory=Augment)
    optim: ClassifierOptim = field(default_factory=ClassifierOptim)
    schedule: Schedule = field(default_factory=Schedule)


def test_it_is_loaded_written_read_and_checked(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("[augment]\nmixup = 0.5\n[optim]\nlayer_decay = 0.9\nbase_lr = 2e-3")
    config = load(Classification, mine, {"schedule.epochs": 90})
    assert config.augment == Augment(0.5)
    assert config.optim == ClassifierOptim(layer_decay=0.9, base_lr=2e-3)
    assert (config.schedule.epochs, config.optim.betas) == (90, (0.9, 0.999))
    assert from_plain(Classification, json.loads(json.dumps(to_plain(config)))) == config
    with pytest.raises(UsageError, match=r"^optim\.layer_decay must be above 0, not 0"):
        ClassifierOptim(layer_decay=0.0)
    mine.write_text("[masks]\nencoder = 'tube'")
    with pytest.raises(UsageError, match=r"line 1: unknown section 'masks'"):
        load(Classification, mine)


def test_its_options_are_its_fields() -> None:
    parser = argparse.ArgumentParser()
    add_fields(parser, Classification)
    words = ["--mixup", "0", "--betas", "0.5", "0.6", "--set", "optim.layer_decay=0.65"]
    assert given(parser.parse_args(words), Classification) == {
        "augment.mixup": 0.0,
        "optim.betas": (0.5, 0.6),
        "optim.layer_decay": 0.65,
    }
    assert "data.stride" not in settings(Classification)
