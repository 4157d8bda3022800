"""Two versions of the package, timed in turns: here one with itself."""

from __future__ import annotations

import json
import sys

from benchmarks.__main__ import main
from benchmarks.reading.versions import CONTAINERS, rows_of
from tests.support.videos import write_video


def test_it_is_recorded(tmp_path):
    write_video(tmp_path / "clip.mp4", 20)
    words = ["--before", sys.executable, "--videos", str(tmp_path), "--rounds", "2"]
    words += ["--repeats", "1", "--out", str(tmp_path / "out")]
    assert main(["reading-versions", *words]) == 0
    (path,) = (tmp_path / "out").glob("reading-versions-cpu-*.json")
    rows = json.loads(path.read_text())["rows"]
    assert [row["file"] for row in rows] == ["clip.mp4", *(f"clip.{one}" for one in CONTAINERS)]
    assert all(row["before_ms"] > 0 and len(row["ratios"]) == 2 for row in rows)


def test_the_ratio_is_of_pairs():
    rounds = [({"a": 1.0}, {"a": 2.0}), ({"a": 4.0}, {"a": 4.0}), ({"a": 2.0}, {"a": 3.0})]
    (row,) = rows_of(rounds)
    assert (row["before_ms"], row["after_ms"], row["ratio"]) == (2000.0, 3000.0, 1.5)
