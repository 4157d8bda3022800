"""The kinds of configurations that recipes are for, by the task's name."""

from __future__ import annotations

from typing import Final

from videomae_fast.recipes.classification import FinetuneConfig
from videomae_fast.recipes.detection import DetectConfig
from videomae_fast.recipes.distillation import DistillConfig
from videomae_fast.recipes.schema import PretrainConfig

KINDS: Final[dict[str, type[PretrainConfig] | type[FinetuneConfig] | type[DetectConfig]]] = {
    kind.task: kind for kind in (PretrainConfig, FinetuneConfig, DistillConfig, DetectConfig)
}
"""In the order in which they are listed."""
