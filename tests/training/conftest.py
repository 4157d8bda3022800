"""Tiny runs: eight short H.264 clips, a model of one block, two steps per epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import TINY, altered
from tests.support.videos import texture, write_video
from videomae_fast.data import Source
from videomae_fast.recipes import PretrainConfig

VIDEOS = 8


@pytest.fixture(scope="session")
def tiny_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``0.mp4`` ... ``7.mp4`` of 12 frames and more, 48 x 40."""
    folder = tmp_path_factory.mktemp("videos")
    for index in range(VIDEOS):
        write_video(folder / f"{index}.mp4", 12 + index, size=(48, 40), make=texture)
    return folder


@pytest.fixture(scope="session")
def tiny_list(tiny_videos: Path) -> Path:
    """The list of these clips."""
    path = tiny_videos / "train.csv"
    path.write_text("".join(f"{tiny_videos}/{index}.mp4 0 -1\n" for index in range(VIDEOS)))
    return path


@pytest.fixture(scope="session")
def broken_list(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one file that is no video."""
    bad = tmp_path_factory.mktemp("broken") / "broken.mp4"
    bad.write_bytes(b"no video at all")
    path = bad.parent / "train.csv"
    lines = [f"{tiny_videos}/{index}.mp4 0 -1\n" for index in range(VIDEOS - 1)]
    path.write_text("".join(lines) + f"{bad} 0 -1\n")
    return path


@pytest.fixture
def tiny(tiny_list: Path) -> Callable[..., PretrainConfig]:
    """A function (**options) -> PretrainConfig of a run of 8 steps; see ``altered``."""

    def make(**options: Any) -> PretrainConfig:
        return altered(PretrainConfig(), **{"data": (Source(tiny_list),), **TINY, **options})

    return make
