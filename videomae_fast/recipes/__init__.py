"""Configurations as values, and recipes as files: imports nothing but the standard library.

::

    from videomae_fast.recipes import PretrainConfig, Source, changed, load

    config = load(PretrainConfig, "vit_b_k400", {"data.lists": ["train.csv"]})
    longer = changed(config, {"schedule.epochs": 2401})
"""

from __future__ import annotations

from videomae_fast.recipes.box_source import BoxSource
from videomae_fast.recipes.classification import (
    Augment,
    ClassifierModel,
    FinetuneConfig,
    FinetuneOptim,
    FinetuneSchedule,
    LabelledData,
    Mix,
)
from videomae_fast.recipes.detection import (
    BoxAugment,
    BoxData,
    DetectConfig,
    DetectOptim,
    DetectorModel,
    DetectSchedule,
)
from videomae_fast.recipes.distillation import Distillation, DistillConfig
from videomae_fast.recipes.load import load
from videomae_fast.recipes.plain import changed, from_plain, to_plain
from videomae_fast.recipes.schema import (
    Data,
    Masks,
    Model,
    Optim,
    PretrainConfig,
    Run,
    Schedule,
    Target,
)
from videomae_fast.recipes.source import Source

__all__ = [
    "Augment",
    "BoxAugment",
    "BoxData",
    "BoxSource",
    "ClassifierModel",
    "Data",
    "DetectConfig",
    "DetectOptim",
    "DetectSchedule",
    "DetectorModel",
    "DistillConfig",
    "Distillation",
    "FinetuneConfig",
    "FinetuneOptim",
    "FinetuneSchedule",
    "LabelledData",
    "Masks",
    "Mix",
    "Model",
    "Optim",
    "PretrainConfig",
    "Run",
    "Schedule",
    "Source",
    "Target",
    "changed",
    "from_plain",
    "load",
    "to_plain",
]
