"""Training clips of fine-tuning: ours against the official chain, and what is recorded."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec

import pytest

from benchmarks.measure.checks import UncheckedError
from benchmarks.reading.augmenting import OfficialChain, compare, main
from benchmarks.reading.material import Material
from benchmarks.report.records import TABLES
from tests.support.videos import write_video
from videomae_fast.data.augment.policy import AugmentSettings
from videomae_fast.data.reading import ReadSettings
from videomae_fast.data.views.augmented import Augmented

pytestmark = pytest.mark.skipif(find_spec("decord") is None, reason="decord is not installed")
RULE = Augmented("dense", AugmentSettings(erase=0.5))
READING = ReadSettings(frames=8, size=(32, 32), samples=3, decoder="decord", rule=RULE)
TINY = ["--frames", "8", "--stride", "2", "--size", "32", "--clips", "1", "--rounds", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a.mp4", 40)
    return folder


def test_ours_makes_the_official_clips_of_the_same_draws(folder):
    files = sorted(folder.iterdir())
    videos = Material("own", {"raw": files}, {"raw": folder / "train.csv"}, {})
    requests = videos.requests("raw", range(6), 3, 2)
    found = compare(requests, OfficialChain(READING), READING)
    assert found.passed
    assert found.most < 1e-4
    other = replace(READING, rule=Augmented("dense", AugmentSettings(operations=0)))
    assert not compare(requests, OfficialChain(other), READING).passed


def test_the_command_checks_then_times_and_says_so(folder, tmp_path, capsys):
    assert main(["--videos", str(folder), *TINY, "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("augment-*.json")
    record = json.loads(path.read_text())
    assert {"official", "ours, pyav", "ours, cache"} <= {run["contender"] for run in record["runs"]}
    table = path.with_suffix(".md").read_text()
    assert "| raw | official |" in table
    assert path.with_suffix(".png").stat().st_size > 5000
    record["checks"][0]["passed"] = False
    with pytest.raises(UncheckedError, match="differs from the official chain"):
        TABLES["augmentation"](record)
