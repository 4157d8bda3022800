"""The log names each file that had to be decoded to number its frames, once, with why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.kinds import ODD
from tests.support.videos import write_video
from videomae_fast.cli import main
from videomae_fast.data import ClipDataset, PipelineStats, Source, clip_loader
from videomae_fast.data.cache import fill_cache
from videomae_fast.data.loader.numbered import NumberedFiles
from videomae_fast.data.prepare import PrepareSettings, prepare

WHY = "AVI stores no presentation times, and frames are reordered"


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A list of a sound file and an odd one, twice."""
    odd = ODD["B-frames in AVI"](tmp_path)
    sound = write_video(tmp_path / "sound.mp4", 40)
    path = tmp_path / "train.csv"
    path.write_text(f"{odd} 0 -1\n{sound} 0 -1\n{odd} 0 -1\n")
    return path


def told(listed: Path) -> list[str]:
    return [f"{listed.parent / 'a.avi'}: decoded to number its frames: {WHY}"]


@pytest.mark.parametrize("workers", [0, 1])
def test_training_names_it_once(listed: Path, workers: int) -> None:
    dataset = ClipDataset([Source(listed)], frames=4, stride=2, samples=1, image_size=32)
    stats = PipelineStats(workers)
    loader = clip_loader(dataset, videos_per_step=3, total_steps=2, workers=workers, stats=stats)
    assert all(batch.ok.all() for batch in loader)
    assert stats.news() == told(listed)
    assert stats.news() == []
    assert stats.how_read(again=True) is None


def test_prepare_and_the_cache_name_it_once(listed: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    settings = PrepareSettings(preset="ultrafast")
    for _ in range(2):  # the second run finds it done
        prepare(listed, tmp_path / "new", settings, speed_files=0, log=lines.append)
    assert [line for line in lines if "number its frames" in line] == told(listed)
    journal = [json.loads(line) for line in (tmp_path / "new" / "prepare.jsonl").open()][1:]
    assert {line["numbered_by_decoding"] for line in journal} == {WHY, None}
    lines.clear()
    fill_cache(listed, tmp_path / "cache", 10**9, log=lines.append)
    assert lines == told(listed)


def test_probe_counts_it(listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["probe", str(listed), "--output", str(tmp_path / "m.jsonl")])
    assert "to be decoded  2 to number their frames" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "m.jsonl").open()]
    assert [line["numbered_by_decoding"] for line in lines] == [WHY, None, WHY]


def test_many_files_are_counted() -> None:
    files = NumberedFiles()
    lines = [files.tell(str(number), "a" if number % 3 else "b") for number in range(60)]
    assert [line is None for line in lines] == [False] * 50 + [True] * 10
    assert files.tell("3", "a") is None
    assert files.tell("new", None) is None
    assert files.summary() == "60 files were decoded to number their frames: 40 for a, 20 for b"
