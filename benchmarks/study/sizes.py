"""Settings that the pilot compares, and those that the study goes by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.gestures.arms import FULL, TINY, StudySettings


def _steps(settings: StudySettings, pretraining: int, finetuning: int) -> StudySettings:
    return replace(
        settings,
        pretraining={**settings.pretraining, "schedule.steps": pretraining},
        finetuning={**settings.finetuning, "schedule.steps": finetuning},
    )


def _sized(**model: Any) -> StudySettings:
    fields = {f"model.{name}": value for name, value in model.items()}
    return replace(FULL, model={**FULL.model, **fields})


def _plainly(settings: StudySettings) -> StudySettings:
    return replace(settings, finetuning={**settings.finetuning, "augment.operations": 0})


# Half as many steps taught a first trial little
LARGE_CUBES = _sized(image_size=96, patch_size=16)
CANDIDATES: dict[str, StudySettings] = {
    "96 px, cubes of 16, 1800 + 1200 steps": _steps(LARGE_CUBES, 1800, 1200),
    "the same, crops without RandAugment": _plainly(_steps(LARGE_CUBES, 1800, 1200)),
    "64 px, cubes of 8, 1800 + 1200 steps": _steps(_sized(), 1800, 1200),
    "96 px, cubes of 16, 3600 + 1200 steps": _steps(LARGE_CUBES, 3600, 1200),
}
"""By what differs. Frames, width, depth and rates are those of the gestures' study."""

CHOSEN = "64 px, cubes of 8, 1800 + 1200 steps"


def tiny() -> StudySettings:
    """Small enough to test the command with."""
    return _steps(TINY, 2, 2)
