"""``prepare`` and ``probe`` from the command line: what they print, and their refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.videos import write_video
from videomae_fast.cli import main
from videomae_fast.data.store.opening import open_store


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with ``train.csv``: two videos, a frame folder and a bad file."""
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        write_video(tmp_path / f"{number}.mp4", 20)
    (tmp_path / "bad.mp4").touch()
    Path("train.csv").write_text("0.mp4 0 -1\nbad.mp4 0 -1\nframes 1 9\n1.mp4 0 -1\n")
    return tmp_path


def test_prepare_says_what_it_made(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--gop 8 --crf 30 --preset fast --short-side 64 --workers 2 --speed-files 1"
    assert main(["prepare", "train.csv", "--output", "out", *options.split()]) == 0
    told = capsys.readouterr()
    assert f"new list   {folder}/out/train.csv  (3 lines)" in told.out
    assert "videos     2 files, 40 frames, " in told.out
    assert "folders    1 lines of frame folders are kept as they were" in told.out
    assert f"bad files  1 lines are left out: {folder}/out/train.csv.bad_files.jsonl" in told.out
    assert "frames/s per process" in told.out
    assert "(4 clips of 1 files)" in told.out
    assert "3 files: 3 to transcode, 0 done\n" in told.err
    assert told.err.count("files 3/3  ") == 1
    assert "bad 1  ETA 0:00:00" in told.err
    report = json.loads(Path("out/train.csv.report.json").read_text())
    assert report["settings"] == {
        "short_side": 64,
        "gop": 8,
        "b_frames": 3,
        "crf": 30,
        "preset": "fast",
    }
    assert (report["lines"], report["bad"], report["folders"]) == (3, 1, 1)


def test_prepare_fills_a_store(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Again, it adds nothing; with another video, that one alone."""
    command = ["prepare", "train.csv", "--output", "out", "--speed-files", "0"]
    command += ["--preset", "ultrafast", "--workers", "1", "--to-store", "clips"]
    # The frame folder stays a line of the new list, which a store can't hold
    for told in ("clips      2, ", "left       2 clips that the store has already"):
        assert main(command) == 0
        out = capsys.readouterr().out
        assert told in out
        assert "store      clips  (version 1)" in out
        assert "bad clips  1 are left out: clips.bad_files.jsonl" in out
    store = open_store("clips")
    assert [store.row(row).source for row in range(2)] == ["0.mp4", "1.mp4"]
    assert store.read(1) == Path("out/videos/1.mp4").read_bytes()
    write_video(folder / "new.mp4", 24)
    Path("train.csv").write_text("0.mp4 0 -1\nnew.mp4 0 -1\n")
    assert main([*command, "--relative-paths"]) == 0
    store = open_store("clips")
    assert (store.version, len(store), store.row(2).source) == (2, 3, "new.mp4")


def test_probe_says_what_it_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "train.csv", "--output", "m.jsonl", "--good-list", "good.csv"]) == 0
    told = capsys.readouterr().out
    assert "lines          4: 2 videos, 0 frame folders, 2 can't be read" in told
    assert "codecs         h264 (2)" in told
    assert "can't be read  1 x 0 bytes" in told
    assert Path("good.csv").read_text() == "0.mp4 0 -1\n1.mp4 0 -1\n"
    assert len(Path("m.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    "words",
    [
        "probe lost.csv --output m.jsonl",
        "prepare lost.csv --output out",
        "cache lost.csv --folder frames --limit-gb 1",
    ],
)
def test_where_paths_start_is_said_where_all_files_are_missing(
    folder: Path, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("lost.csv").write_text("sub/0.mp4 0 -1\nsub/1.mp4 0 -1\n")
    main(words.split())
    told = capsys.readouterr()
    where = f"sub/0.mp4 was looked for at {folder}/sub/0.mp4: relative paths of a list start from"
    assert where in told.out + told.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("prepare none.csv --output out", "none.csv: no such list file"),
        ("prepare train.csv --output 0.mp4", "--output 0.mp4 is a file: name a folder"),
        ("prepare train.csv --output .", "would overwrite this one"),
        ("prepare train.csv --output out --root none", "--root none: no such folder"),
        ("prepare train.csv --output out --workers 0", "--workers must be 1 or more, not 0"),
        ("prepare train.csv --output out --time-limit 0", "--time-limit must be more than 0"),
        ("prepare train.csv --output out --speed-files -1", "--speed-files must be 0 or more"),
        ("prepare train.csv --output out --short-side 255", "must be even"),
        ("prepare train.csv --output out --crf 99", "crf 99 must be between 0 and 51"),
        ("probe train.csv --output train.csv", "would overwrite the list"),
        ("probe train.csv --output a --good-list ./train.csv", "would overwrite the list"),
        ("probe train.csv --output a --good-list ./a", "name the same file"),
    ],
)
def test_refusals_say_what_to_do(
    folder: Path, words: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.iterdir())
    assert main(words.split()) == 2
    shown = capsys.readouterr().err
    assert told in shown
    assert shown.count("\n") == 1
    assert sorted(folder.iterdir()) == before
