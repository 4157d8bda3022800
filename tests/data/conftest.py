"""Lists of small numbered clips, and the count of videos that were made."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.made_videos import Made
from tests.support.videos import write_video


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six videos ``clip0.mp4`` ... of 20, 34, 48, 62, 76, 90 frames."""
    folder = tmp_path_factory.mktemp("clips")
    for index in range(6):
        write_video(folder / f"clip{index}.mp4", 20 + 14 * index)
    return folder


@pytest.fixture
def clip_list(clips: Path, tmp_path: Path) -> Path:
    """The pre-training list of ``clips``."""
    path = tmp_path / "train.csv"
    path.write_text("".join(f"{clips}/clip{index}.mp4 0 -1\n" for index in range(6)))
    return path


@pytest.fixture(autouse=True)
def _nothing_made_yet() -> None:
    Made.opened = 0
