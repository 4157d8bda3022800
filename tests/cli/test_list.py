"""``videomae-fast list``: what is found, in which order, and as which lines."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from videomae_fast.cli import main
from videomae_fast.data import load_list
from videomae_fast.data.lists import video_files as module
from videomae_fast.recipes.source import ListFormat

NAMES = [
    "b/2.mp4", "b/10.MKV", "a/#1.mp4", "a/sub/deep.webm", "a b/c d.avi", "\udcff.mp4", "z.mp4 ",
    "Z.MP4", "\u00e9.mov",
]  # fmt: skip
FOUND = ["Z.MP4", "a/#1.mp4", "a/sub/deep.webm", "a b/c d.avi", "b/10.MKV", "b/2.mp4", "\u00e9.mov",
         "\udcff.mp4"]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Videos, and what is none: other files, hidden ones, links that lead nowhere or back."""
    made = tmp_path / "videos"
    for name in [*NAMES, "notes.txt", ".hidden.mp4", "a/._1.mp4", "a/x\ny.mp4"]:
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).touch()
    (made / "a" / "loop").symlink_to(made)
    (made / "gone.mp4").symlink_to(made / "nowhere")
    os.mkfifo(made / "pipe.mp4")
    return made


def paths(file: Path, format: ListFormat = "pretrain") -> list[str]:
    loaded = load_list(file, format)
    return [loaded[index].path for index in range(len(loaded))]


def test_videos_of_a_folder_in_one_order(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    listdir = os.listdir
    monkeypatch.setattr(module.os, "listdir", lambda at: random.sample(x := listdir(at), len(x)))
    assert main(["list", str(folder)]) == 0
    shown = capfdbinary.readouterr()
    (tmp_path / "printed.csv").write_bytes(shown.out)
    assert paths(tmp_path / "printed.csv") == [f"{folder}/{name}" for name in FOUND]
    told = shown.err.decode()
    assert told.startswith("8 videos; left out: ")
    for words in ("2 hidden names", "1 links to a folder above", "1 broken links", "1 .txt",
                  "1 pipes and devices", "1 names with a line feed", "1 .mp4 "):  # fmt: skip
        assert words in told
    assert main(["list", str(folder), "--output", str(tmp_path / "written.csv")]) == 0
    assert (tmp_path / "written.csv").read_bytes() == shown.out


def test_paths_that_start_from_the_folder(folder: Path, tmp_path: Path) -> None:
    words = ["list", str(folder), "--relative", "--output", str(tmp_path / "list.csv")]
    assert main(words) == 0
    assert paths(tmp_path / "list.csv") == FOUND


def test_classes_are_folders_and_their_numbers_can_be_kept(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("Z.MP4", "\u00e9.mov", "\udcff.mp4"):
        (folder / name).unlink()
    classes, out = tmp_path / "classes.txt", tmp_path / "list.csv"
    words = ["list", str(folder), "--labels", "--classes", str(classes), "--output", str(out)]
    assert main(words) == 0
    assert capsys.readouterr().err.startswith("5 videos of 3 classes; left out")
    assert classes.read_text() == "a\na b\nb\n"
    loaded = load_list(out, "labels")
    assert [loaded[index].label for index in range(5)] == [0, 0, 1, 2, 2]
    assert paths(out, "labels") == [f"{folder}/{name}" for name in FOUND[1:6]]

    classes.write_text("b\r\nother\r\na b\r\na\r\n")
    assert main(words) == 0
    loaded = load_list(out, "labels")
    assert [loaded[index].label for index in range(5)] == [3, 3, 2, 0, 0]
    assert "other" in classes.read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("list none", "none: no such folder"),
        (
            "list empty",
            "empty: no videos in it or in the folders below; looked for files ending in",
        ),
        ("list frames", "found 2 .jpg; a list names a folder of frames `folder start total`"),
        ("list videos --labels", "videos/1.mp4: is in no folder of a class"),
        ("list deep --labels --classes classes", "deep/c: classes has no class of this name; it h"),
        ("list deep --labels --classes twice", "twice:2: 'a' is the class of line 1 too"),
        ("list lines --labels --classes new", r"'lines/c\rd': a class of this name can't stand on"),
        ("list videos --classes c", "--classes goes with --labels"),
        ("list videos --output deep", "--output deep is a folder: name a file"),
        (
            "probe videos --output m",
            "is a folder: make a list of its videos with videomae-fast list ",
        ),
        (
            "pretrain --data videos --output o",
            "a folder: make a list of its videos with videomae-fa",
        ),
        ("pretrain --data pipe --output o", "pipe is a pipe or a device: write the list to a file"),
    ],
)
def test_refusals_say_what_to_do(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "empty/x",
        "frames/1.jpg",
        "frames/2.jpg",
        "videos/1.mp4",
        "deep/c/1.mp4",
        "lines/c\rd/1.mp4",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("empty/x").unlink()
    Path("classes").write_text("a\nb\n")
    Path("twice").write_text("a\na\n")
    os.mkfifo("pipe")
    assert main(words.split()) != 0
    shown = capsys.readouterr().err
    assert told in shown
    assert shown.count("\n") == 1
