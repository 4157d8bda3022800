"""``videomae-fast labels merge``: lists of several sets to one label space, as files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from videomae_fast.cli import main
from videomae_fast.data import load_list
from videomae_fast.data.labels.building import read_other_names
from videomae_fast.data.labels.kinetics import kinetics_names, kinetics_rows
from videomae_fast.interop.weights.heads import read_rows

SETS = (400, 600, 700)


def merge(*words: object) -> int:
    return main(["labels", "merge", *map(str, words)])


def labels(file: Path) -> list[tuple[str, int]]:
    loaded = load_list(file, "labels")
    return [(loaded[i].path, loaded[i].label) for i in range(len(loaded))]


@pytest.fixture
def kinetics(tmp_path: Path) -> list[str]:
    """A video for each class of Kinetics-400, 600 and 700, as lists of the sets."""
    words = []
    for classes in SETS:
        lines = [f"k{classes}_{label:06d}.mp4 {label}\n" for label in range(classes)]
        (tmp_path / f"k{classes}.csv").write_text("".join(lines))
        words += ["--train", f"{tmp_path}/k{classes}.csv,classes=kinetics-{classes}"]
    return words


def test_kinetics_710_is_made_of_its_sets(kinetics: list[str], tmp_path: Path) -> None:
    words = ["--classes", "kinetics-710", "--other-names", "kinetics"]
    assert merge(*kinetics, *words, "--output", tmp_path / "k710") == 0
    names = (tmp_path / "k710/classes.txt").read_text().splitlines()
    assert names == kinetics_names(710)
    videos = labels(tmp_path / "k710/train.csv")
    assert len(videos) == sum(SETS)
    assert [label for _, label in videos] == [
        row for classes in SETS for row in kinetics_rows(classes)
    ]
    for classes in SETS:  # the rows that pick each set's head out of the merged one
        rows = read_rows(tmp_path / f"k710/rows-kinetics-{classes}.json", 710)
        assert rows == kinetics_rows(classes)


def test_free_names_are_the_same_710_sorted(kinetics: list[str], tmp_path: Path) -> None:
    assert merge(*kinetics, "--output", tmp_path / "free") == 0
    names = (tmp_path / "free/classes.txt").read_text().splitlines()
    assert names == sorted(kinetics_names(710))
    rows = read_rows(tmp_path / "free/rows-kinetics-400.json", 710)
    assert [names[row] for row in rows] == kinetics_names(400)


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """Two sets with names for one class, a video that is in both, and one of b's validation."""
    (tmp_path / "a.txt").write_text("hug\nrun\n")
    (tmp_path / "b.txt").write_text("run\nembrace\njump\n")
    (tmp_path / "other.json").write_text('{"hug": "embrace"}')
    (tmp_path / "a.csv").write_text(
        "aaaaaaaaaa1_000001_000011.mp4 0\nx/0.mp4 1\ny/0.mp4 0\nbbbbbbbbbb2.mp4 1\n"
    )
    (tmp_path / "b.csv").write_text("aaaaaaaaaa1.mp4 0\n'my video'.mp4 2\n")
    (tmp_path / "v.csv").write_text("bbbbbbbbbb2_000005_000015.mp4 0\n")
    return tmp_path


WORDS = (
    "--train", "a.csv,classes=a.txt", "--train", "b.csv,classes=b.txt,name=bees",
    "--validation", "v.csv,classes=b.txt", "--other-names", "other.json", "--output", "out",
)  # fmt: skip


def test_duplicates_conflicts_and_leaks_are_reported(
    sets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(sets)
    assert merge(*WORDS) == 0
    assert Path("out/classes.txt").read_text() == "embrace\njump\nrun\n"
    here = str(sets)
    assert labels(Path("out/train.csv")) == [
        (f"{here}/aaaaaaaaaa1_000001_000011.mp4", 0), (f"{here}/x/0.mp4", 2),
        (f"{here}/y/0.mp4", 0), (f"{here}/'my video'.mp4", 1),
    ]  # fmt: skip
    assert labels(Path("out/val.csv")) == [(f"{here}/bbbbbbbbbb2_000005_000015.mp4", 2)]
    left_out = [json.loads(line) for line in Path("out/left_out.jsonl").read_text().splitlines()]
    assert [(one["why"], Path(one.get("path", "-")).name) for one in left_out] == [
        ("duplicate", "aaaaaaaaaa1.mp4"), ("leak", "bbbbbbbbbb2.mp4"), ("conflict", "-"),
    ]  # fmt: skip
    report = json.loads(Path("out/report.json").read_text())
    assert (report["duplicates"], report["leaks"], report["conflicts"]) == (1, 1, 1)
    assert report["renamed"] == [{"name": "hug", "means": "embrace", "videos": 2}]
    assert report["taken_for_others_of_one_list"] == {}
    told = capsys.readouterr().out
    assert "aaaaaaaaaa1 has different classes, the first is taken" in told
    assert json.loads(Path("out/rows-a.json").read_text()) == [0, 2]


def test_a_rule_that_takes_videos_of_one_list_for_one_is_told(
    sets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(sets)
    assert merge(*WORDS, "--same-video", "name") == 0
    told = capsys.readouterr().out
    assert "warning: 1 videos of a.csv alone were taken for others of that list" in told
    assert "--same-video path" in told


def test_classes_of_one_set_that_become_one_leave_no_rows(
    sets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(sets)
    assert merge(*WORDS) == 0
    assert Path("out/rows-b.json").exists()
    Path("other.json").write_text('{"hug": "embrace", "jump": "run"}')
    words = [word for word in WORDS if word not in ("--validation", "v.csv,classes=b.txt")]
    assert merge(*words) == 0
    told = capsys.readouterr().out
    assert "several classes of b are one now" in told
    assert "no list is for validation" in told
    left = sorted(one.name for one in Path("out").iterdir())  # nothing of the merge before
    assert left == ["classes.txt", "left_out.jsonl", "report.json", "rows-a.json", "train.csv"]


def test_frame_folders_keep_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("a\nb\n")
    (tmp_path / "f.csv").write_text("one 20 1\n")
    source = f"{tmp_path}/f.csv,root={tmp_path},classes={tmp_path}/c.txt,format=folder-labels"
    assert merge("--train", source, "--output", tmp_path / "out") == 0
    assert (tmp_path / "out/train.csv").read_text() == f"{tmp_path}/one 20 1\n"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ("--output out", 2, "--train is missing"),
        ("--train a.csv --output out", 2, "say once whose classes its labels are"),
        ("--train a.csv,classes=a.txt", 2, "--output is missing"),
        ("--train a.csv,classes=no.txt --output out", 2, "no.txt: can't be read"),
        ("--train b.csv,classes=a.txt --output out", 1, "b.csv:2: label 2 is none of the 2"),
        ("--train a.csv,classes=a.txt --classes b.txt --output out", 1, "hug"),
        ("--train a.csv,classes=a.txt,format=pretrain --output out", 2, "one format with labels"),
        ("--train a.csv,classes=a.txt --other-names a.txt --output out", 2, "as JSON"),
    ],
)
def test_what_is_refused(
    words: str,
    code: int,
    told: str,
    sets: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(sets)
    assert merge(*words.split()) == code
    assert told in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_chain_of_names_is_refused(tmp_path: Path) -> None:
    from videomae_fast.errors import UsageError

    (tmp_path / "chain.json").write_text('{"a": "b", "b": "c"}')
    with pytest.raises(UsageError, match="'b' means another name and is meant itself"):
        read_other_names(str(tmp_path / "chain.json"))
