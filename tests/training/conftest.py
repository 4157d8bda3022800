"""Tiny runs: eight short H.264 clips, a model of one block, two steps per epoch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.data.videos import write_video
from videomae_fast.data import Source
from videomae_fast.recipes import PretrainConfig, changed
from videomae_fast.recipes.plain import from_flat

ROOT = Path(__file__).parents[2]
VIDEOS = 8

TINY: dict[str, Any] = {
    "size": "small",
    "image_size": 32,
    "frames": 4,
    "width": 32,
    "depth": 1,
    "heads": 2,
    "decoder_width": 16,
    "decoder_depth": 1,
    "decoder_heads": 1,
    "encoder_mask_ratio": 0.5,
    "stride": 2,
    "samples_per_video": 2,
    "workers": 0,
    "videos_per_step": 4,
    "epochs": 4,
    "warmup_epochs": 1,
    "base_lr": 0.2,
    "log_every": 2,
    "checkpoint_every": 100,
    "max_failed_share": 0.5,
    "device": "cpu",
}


def texture(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """Moving stripes of a few widths under a little noise: something to learn, no flat cube."""
    x = np.arange(width)[None, :, None] + 2 * number
    y = np.arange(height)[:, None, None]
    waves = np.sin(x / np.array([4.0, 7.0, 11.0])) + np.cos(y / np.array([9.0, 5.0, 6.0]))
    noise = np.random.default_rng(number).normal(0, 5, (height, width, 3))
    return (128 + 50 * waves + noise).clip(0, 255).astype(np.uint8)


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
    """A function (**options) -> PretrainConfig of a run of 8 steps; see :func:`altered`."""

    def make(**options: Any) -> PretrainConfig:
        return altered(PretrainConfig(), **{"data": (Source(tiny_list),), **TINY, **options})

    return make


def altered(config: PretrainConfig, **options: Any) -> PretrainConfig:
    """A configuration with other values, by the names that they have on the command line."""
    return changed(config, from_flat(PretrainConfig, options))


def options(**changed: Any) -> list[str]:
    """TINY as command-line options of ``pretrain``, fields changed."""
    words = []
    for name, value in {**TINY, "data_format": "plain", **changed}.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def start(
    words: Sequence[str], *, launcher: Sequence[str] = (), **env: str
) -> subprocess.Popen[str]:
    """Starts ``videomae-fast pretrain`` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "videomae_fast", "pretrain", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], expected: int = 0) -> str:
    """Waits for a process, checks its exit code, and returns its output."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == expected, output
    return output
