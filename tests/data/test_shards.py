"""A list prepared and probed in shards: what all write is what one machine would."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.videos import write_video
from videomae_fast.cli import main
from videomae_fast.data.prepare import PrepareSettings
from videomae_fast.data.prepare.journal import Journal
from videomae_fast.data.prepare.run import prepare
from videomae_fast.data.prepare.shards import prepare_shard
from videomae_fast.data.prepare.work import JOURNAL, Work
from videomae_fast.data.probe import probe
from videomae_fast.data.shards import contiguous
from videomae_fast.errors import UsageError

FAST = PrepareSettings(short_side=64, preset="ultrafast")


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Seven lines: names that collide, one line twice, a folder, what is missing or no video."""
    monkeypatch.chdir(tmp_path)
    for name in ("a/1.mp4", "1.mp4", "A/1.mp4"):
        Path(name).parent.mkdir(exist_ok=True)
        write_video(Path(name), 12)
    write_video(Path("a/1.avi"), 9, codec="mpeg4", options={"g": "6"})
    Path("bad.mp4").write_bytes(b"no video")
    lines = ["a/1.mp4", "1.mp4", "bad.mp4", "A/1.mp4", "a/1.avi", "1.mp4", "gone.mp4"]
    Path("train.csv").write_text("frames 1 9\n" + "".join(f"{one} 0 -1\n" for one in lines))
    return Path("train.csv")


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 20])
def test_parts_are_all_lines_once(parts: int) -> None:
    lines = [line for part in range(1, parts + 1) for line in contiguous(13, (part, parts))]
    assert lines == list(range(13))
    with pytest.raises(ValueError, match="shard 0 of 3 is none"):
        contiguous(13, (0, 3))


def test_prepared_in_shards(listed: Path) -> None:
    """In any order, one of them stopped and done again; byte for byte the files of one machine."""
    prepare(listed, "whole", FAST, speed_files=0)
    work = Work()
    for part in (3, 1, 2):
        done = prepare_shard(listed, "parts", FAST, work, (part, 3))
        assert done.files + done.bad > 0
    shutil.rmtree("parts/shards/1-of-3")  # as if its machine had been lost
    again: list[str] = []
    prepare_shard(listed, "parts", FAST, Work(log=again.append), (1, 3))
    assert "1 files: 1 to transcode" in again[0]
    told: list[str] = []
    prepare(listed, "parts", FAST, speed_files=0, log=told.append)
    assert "6 files: 0 to transcode, 4 done, 2 failed before" in told[0]
    whole = {one.relative_to("whole"): one for one in Path("whole/videos").rglob("*.mp4")}
    assert len(whole) == 4
    for name, path in whole.items():
        assert (Path("parts") / name).read_bytes() == path.read_bytes()
    assert len(list(Path("parts/videos").rglob("*.mp4"))) == 4
    for name in ("train.csv", "train.csv.bad_files.jsonl"):
        expected = Path("whole", name).read_text().replace("/whole/", "/parts/")
        assert Path("parts", name).read_text() == expected


def test_shards_and_the_whole_keep_out_of_each_other(listed: Path) -> None:
    prepare_shard(listed, "out", FAST, Work(), (1, 2))
    journal = Path("out/shards/1-of-2") / JOURNAL
    with Journal(journal, FAST), pytest.raises(UsageError, match="prepares files"):
        prepare(listed, "out", FAST, speed_files=0)
    with pytest.raises(UsageError, match="made with other settings"):
        prepare(listed, "out", PrepareSettings(), speed_files=0)
    shutil.rmtree("out")
    prepare(listed, "out", FAST, speed_files=0)
    with pytest.raises(UsageError, match="was prepared without shards before"):
        prepare_shard(listed, "out", FAST, Work(), (1, 2))


def test_probed_in_shards(listed: Path) -> None:
    probe(listed, "whole.jsonl", good_list="whole.csv")
    for part in (1, 2, 3):
        probe(listed, f"{part}.jsonl", good_list=f"{part}.csv", shard=(part, 3))
    for ending in ("jsonl", "csv"):
        parts = [Path(f"{part}.{ending}").read_bytes() for part in (1, 2, 3)]
        assert b"".join(parts) == Path(f"whole.{ending}").read_bytes()
    with pytest.raises(UsageError, match="has 8 lines, too few for 9 shards"):
        probe(listed, "x.jsonl", shard=(1, 9))


def test_by_the_commands(listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--workers", "1", "--preset", "ultrafast"]
    assert main(["prepare", "train.csv", "--output", "out", "--shard", "2/2", *options]) == 0
    assert "shard      2 of 2: 3 files, 1 bad" in capsys.readouterr().out
    assert not Path("out/train.csv").exists()
    command = ["probe", "train.csv", "--output", "2.jsonl", "--shard", "2/2", "--workers", "1"]
    assert main(command) == 0
    lines = [json.loads(line)["line"] for line in Path("2.jsonl").read_text().splitlines()]
    assert lines == [5, 6, 7, 8]
    words = ["prepare", "train.csv", "--output", "out", "--shard"]
    assert main([*words, "1/2", "--to-store", "s"]) == 2
    assert "--to-store goes with the command without --shard" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*words, "3/2"])
    assert "is no part like 1/4" in capsys.readouterr().err
