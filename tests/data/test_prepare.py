"""A list through ``prepare``: the new list, resuming, and everything that can go wrong."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.interrupts import COMMAND
from tests.support.launches import Host
from tests.support.limits import largest_file
from tests.support.videos import read_numbers, write_audio, write_video
from videomae_fast.cli import main
from videomae_fast.data import load_list, open_video
from videomae_fast.data.errors import ListError, OutputError
from videomae_fast.data.prepare import Job, Prepared, PrepareSettings, Transcoded, prepare, work
from videomae_fast.data.prepare.journal import Journal, Record
from videomae_fast.data.prepare.names import Names
from videomae_fast.data.prepare.transcoding import transcode
from videomae_fast.errors import UsageError, VideoMAEFastError

QUICK: dict[str, Any] = {"workers": 2, "speed_files": 0}
ROOT = Path(__file__).parents[2]


def write_list(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def bad_files(done: Prepared) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in done.bad_files.read_text().splitlines()]
    return {Path(line["path"]).name: line for line in lines}


def count(path: Path) -> int:
    with open_video(path) as video:
        return video.frame_count


def times(folder: Path) -> dict[str, int]:
    """When each new file was written."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*.mp4")}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of 5 to 8 frames, two of them of the same name, and all kinds of bad files."""
    folder = tmp_path_factory.mktemp("sources")
    for number, name in enumerate(["a/1.mp4", "b/1.mp4", "b/with a space.mkv", "b/1.avi"]):
        (folder / name).parent.mkdir(exist_ok=True)
        write_video(folder / name, 5 + number)
    whole = write_video(folder / "w.mp4", container={"movflags": "faststart"}).read_bytes()
    (folder / "w.mp4").unlink()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) * 7 // 10])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a video\n" * 50)
    write_audio(folder / "audio.m4a")
    return folder


GOOD = ["a/1.mp4", "b/1.mp4", "b/with a space.mkv", "b/1.avi"]


def test_order_labels_and_repeated_lines_are_kept_and_bad_ones_left_out(
    sources: Path, tmp_path: Path
) -> None:
    names = ["b/1.avi", "cut.mp4", "a/1.mp4", "empty.mp4", "b/with a space.mkv", "text.mp4",
             "b/1.mp4", "audio.m4a", "none.mp4", "a/1.mp4"]  # fmt: skip
    lines = [f"{name} {label}" for label, name in enumerate(names)]
    path = write_list(tmp_path / "train.csv", ["# a comment", *lines])
    done = prepare(path, tmp_path / "out", format="labels", root=sources, **QUICK)
    entries = load_list(done.list, "labels")
    assert [entries[index].label for index in range(len(entries))] == [0, 2, 4, 6, 9]
    frames = [count(Path(entries[index].path)) for index in range(len(entries))]
    assert frames == [8, 5, 7, 6, 5]
    assert (done.lines, done.bad, done.files, done.frames) == (5, 5, 4, 26)
    bad = bad_files(done)
    assert {name: line["line"] for name, line in bad.items()} == {
        "cut.mp4": 3, "empty.mp4": 5, "text.mp4": 7, "audio.m4a": 9, "none.mp4": 10
    }  # fmt: skip
    assert bad["cut.mp4"]["reason"].startswith("truncated")
    assert bad["empty.mp4"]["reason"] == "0 bytes"
    assert bad["audio.m4a"]["reason"] == "no video stream"
    assert bad["none.mp4"]["reason"] == "no such file"
    assert "--root" in bad["none.mp4"]["remedy"]
    assert all(line["list_path"] == str(path) and line["remedy"] for line in bad.values())
    assert '"' in done.list.read_text().splitlines()[2]  # a path with spaces, as CSV has it
    assert done.bytes == sum(p.stat().st_size for p in (tmp_path / "out/videos").rglob("*.mp4"))
    assert not (tmp_path / "out" / ".partial").exists()


def test_a_second_run_does_nothing_and_writes_the_same(sources: Path, tmp_path: Path) -> None:
    path = write_list(tmp_path / "train.csv", [f"{name} 0 -1" for name in [*GOOD, "cut.mp4"]])
    first = prepare(path, tmp_path / "out", root=sources, **QUICK)
    written, text = times(tmp_path / "out"), first.list.read_text()
    journal = (tmp_path / "out/prepare.jsonl").read_text()
    told: list[str] = []
    again = prepare(path, tmp_path / "out", root=sources, log=told.append, **QUICK)
    assert told == [
        "5 files: 0 to transcode, 4 done, 1 failed before (--retry-failed tries them again)"
    ]
    assert again == first
    assert times(tmp_path / "out") == written
    assert again.list.read_text() == text
    assert (tmp_path / "out/prepare.jsonl").read_text() == journal


def test_what_changed_or_is_not_whole_is_done_again(sources: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for number in range(4):
        write_video(mine / f"{number}.mp4", 5)
    (mine / "late.mp4").write_text("no video yet")
    names = [*(f"{number}.mp4" for number in range(4)), "late.mp4", "missing.mp4"]
    path = write_list(tmp_path / "train.csv", [f"{mine}/{name} 0 -1" for name in names])
    out = tmp_path / "out"
    assert prepare(path, out, **QUICK).lines == 4
    before = times(out)
    new = {name: Path(load_list(out / "train.csv")[name].path) for name in range(4)}
    write_video(mine / "0.mp4", 9)  # another video
    new[1].write_bytes(new[1].read_bytes()[:-1])  # damaged
    new[2].unlink()
    (mine / "3.mp4").unlink()  # not needed any more
    write_video(mine / "late.mp4", 5)
    write_video(mine / "missing.mp4", 5)
    told: list[str] = []
    done = prepare(path, out, log=told.append, **QUICK)
    assert told[0] == "6 files: 5 to transcode, 1 done"
    assert done.lines == 6
    assert count(new[0]) == 9
    assert [count(new[number]) for number in (1, 2, 3)] == [5, 5, 5]
    assert times(out)[str(new[3])] == before[str(new[3])]


def test_failed_files_are_tried_again_when_asked(sources: Path, tmp_path: Path) -> None:
    path = write_list(
        tmp_path / "train.csv", [f"{sources}/{n} 0 -1" for n in ("a/1.mp4", "cut.mp4")]
    )
    prepare(path, tmp_path / "out", **QUICK)
    told: list[str] = []
    prepare(path, tmp_path / "out", retry_failed=True, log=told.append, **QUICK)
    assert told[0] == "2 files: 1 to transcode, 1 done"


def crash_or_hang(job: Job) -> Transcoded:
    """Stands in for a decoder that does what the source's name says."""
    if job.source.name == "hangs.mp4":
        job.partial.parent.mkdir(parents=True, exist_ok=True)
        job.partial.touch()
        time.sleep(1000)
    if job.source.name == "crashes.mp4":
        os.kill(os.getpid(), signal.SIGSEGV)
    if job.source.name == "killed.mp4":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.source.name == "bug.mp4":
        raise KeyError("a bug")
    if job.source.name == "vanishes.mp4":
        job.source.unlink()
    if job.source.name == "full.mp4":
        raise OutputError("full.mp4: can't be written: No space left on device")
    return transcode(job)


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "transcode", crash_or_hang)


@pytest.mark.usefixtures("trouble")
def test_a_crash_a_kill_a_hang_and_a_bug_cost_their_file_only(tmp_path: Path) -> None:
    names = ["crashes", "one", "hangs", "two", "killed", "bug", "vanishes", "three"]
    for name in names:
        write_video(tmp_path / f"{name}.mp4", 5)
    path = write_list(tmp_path / "train.csv", [f"{tmp_path}/{name}.mp4 0 -1" for name in names])
    told: list[str] = []
    done = prepare(path, tmp_path / "out", log=told.append, workers=2, speed_files=0, time_limit=6)
    assert [Path(entry.path).name for entry in map(load_list(done.list).__getitem__, range(3))] == [
        "one.mp4", "two.mp4", "three.mp4"
    ]  # fmt: skip
    reasons = {name: line["reason"] for name, line in bad_files(done).items()}
    assert reasons == {
        "crashes.mp4": "its process was ended by SIGSEGV",
        "hangs.mp4": "took longer than 6 s",
        "killed.mp4": "its process was ended by SIGKILL (by hand, or for want of memory)",
        "bug.mp4": "KeyError: 'a bug'",
        "vanishes.mp4": "no such file",
    }
    assert "--time-limit" in bad_files(done)["hangs.mp4"]["remedy"]
    assert any("Traceback" in line for line in told)
    assert not (tmp_path / "out/.partial").exists()


@pytest.mark.usefixtures("trouble")
def test_a_full_disk_stops_the_run_and_keeps_what_is_done(tmp_path: Path) -> None:
    for name in ("one", "full", "two"):
        write_video(tmp_path / f"{name}.mp4", 5)
    path = write_list(
        tmp_path / "train.csv", [f"{tmp_path}/{name}.mp4 0 -1" for name in ("one", "full", "two")]
    )
    settings: dict[str, Any] = {"workers": 1, "speed_files": 0}
    with pytest.raises(OutputError, match=r"No space left on device\. What is done is kept"):
        prepare(path, tmp_path / "out", **settings)
    lines = (tmp_path / "out/prepare.jsonl").read_text().splitlines()
    assert [Path(json.loads(line)["source"]).name for line in lines[1:]] == ["one.mp4"]
    assert not (tmp_path / "out/train.csv").exists()
    (tmp_path / "full.mp4").rename(tmp_path / "room.mp4")
    path.write_text(path.read_text().replace("full.mp4", "room.mp4"))
    told: list[str] = []
    assert prepare(path, tmp_path / "out", log=told.append, **settings).lines == 3
    assert told[0] == "3 files: 2 to transcode, 1 done"


def test_a_full_disk_under_the_new_list(sources: Path, tmp_path: Path) -> None:
    path = write_list(tmp_path / "train.csv", [f"{sources}/a/1.mp4 0 -1"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out/train.csv.partial").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"train\.csv: can't be written: No space left"):
        prepare(path, tmp_path / "out", **QUICK)
    assert not (tmp_path / "out/train.csv").exists()
    assert prepare(path, tmp_path / "out", **QUICK).lines == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_stopped_goes_on_where_it_was(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: int
) -> None:
    source = write_video(tmp_path / "source.mp4", 40, size=(320, 256))
    names = [f"{number}.mp4" for number in range(12)]
    for name in names:
        (tmp_path / name).symlink_to(source)
    path = write_list(tmp_path / "train.csv", [f"{tmp_path}/{name} 0 -1" for name in names])
    out = tmp_path / "out"
    words = ["prepare", str(path), "--output", str(out), "--workers", "2", "--speed-files", "0"]
    run = host.alone(COMMAND, words, tmp_path / "log")
    journal = out / "prepare.jsonl"
    deadline = time.monotonic() + 120
    while not journal.exists() or journal.read_text().count("\n") < 4:
        assert time.monotonic() < deadline
        assert run.poll() is None, run.said()
        time.sleep(0.01)
    os.kill(run.pid, how)
    told = run.finish(130 if how == signal.SIGINT else -how)
    if how == signal.SIGINT:
        assert told.endswith("videomae-fast prepare: interrupted\n")
        assert "Traceback" not in told
        assert not (out / ".partial").exists()
    assert not (out / "train.csv").exists()
    lines = journal.read_text().split("\n")
    done = {json.loads(line)["source"] for line in lines[1:-1]}
    assert 3 <= len(done) < 12
    kept = times(out / "videos")
    # Files that were renamed just before the kill may be there without a line: done again.
    journal.write_text("\n".join(lines[:-1]) + '\n{"source": "cut o')
    assert main(words) == 0
    assert f"12 files: {12 - len(done)} to transcode, {len(done)} done" in capsys.readouterr().err
    entries = load_list(out / "train.csv")
    assert [Path(entries[index].path).name for index in range(12)] == names
    for name in names:
        new = out / "videos" / str(tmp_path / name).lstrip("/")
        with open_video(new) as video:
            assert read_numbers(video.read([0, 39])) == [0, 39]
        if str(tmp_path / name) in done:
            assert new.stat().st_mtime_ns == kept[str(new)]
    assert not (out / ".partial").exists()


def test_frame_folders_stay_as_they_are(sources: Path, tmp_path: Path) -> None:
    path = write_list(
        tmp_path / "hybrid.csv", ["frames/1 1 250", "a/1.mp4 0 -1", "/abs/frames 9601 30"]
    )
    done = prepare(path, tmp_path / "out", root=sources, **QUICK)
    assert done.folders == 2
    assert done.list.read_text().splitlines() == [
        f"{sources}/frames/1 1 250", f"{tmp_path}/out/videos/a/1.mp4 0 -1", "/abs/frames 9601 30"
    ]  # fmt: skip
    only = write_list(tmp_path / "only.csv", ["frames/1 1 250"])
    with pytest.raises(UsageError, match="only frame folders: nothing to prepare"):
        prepare(only, tmp_path / "out", **QUICK)


def test_relative_paths_make_a_folder_that_can_be_moved(sources: Path, tmp_path: Path) -> None:
    path = write_list(tmp_path / "train.csv", ["a/1.mp4 0 -1", f"{sources}/b/1.mp4 0 -1"])
    done = prepare(path, tmp_path / "out", root=sources, relative_paths=True, **QUICK)
    (tmp_path / "out").rename(tmp_path / "moved")
    entries = load_list(tmp_path / "moved" / done.list.name)
    assert [count(tmp_path / "moved" / entries[index].path) for index in range(2)] == [5, 6]


def test_two_lists_share_an_output(sources: Path, tmp_path: Path) -> None:
    one = write_list(tmp_path / "train.csv", [f"{sources}/a/1.mp4 0 -1", f"{sources}/cut.mp4 0 -1"])
    two = write_list(tmp_path / "val.csv", [f"{sources}/a/1.mp4 0 -1", f"{sources}/b/1.mp4 0 -1"])
    first = prepare(one, tmp_path / "out", **QUICK)
    told: list[str] = []
    second = prepare(two, tmp_path / "out", log=told.append, **QUICK)
    assert told[0] == "2 files: 1 to transcode, 1 done"
    assert (first.lines, second.lines) == (1, 2)
    assert list(bad_files(first)) == ["cut.mp4"]  # not overwritten by the second
    (tmp_path / "other").mkdir()
    other = write_list(tmp_path / "other/train.csv", [f"{sources}/b/1.mp4 0 -1"])
    with pytest.raises(UsageError, match="another list of the same name"):
        prepare(other, tmp_path / "out", **QUICK)


def test_refusals(sources: Path, tmp_path: Path) -> None:
    path = write_list(tmp_path / "train.csv", [f"{sources}/a/1.mp4 0 -1"])
    with pytest.raises(UsageError, match="would overwrite this one"):
        prepare(path, tmp_path, **QUICK)
    assert path.read_text() == f"{sources}/a/1.mp4 0 -1\n"
    prepare(path, tmp_path / "out", **QUICK)
    with pytest.raises(UsageError, match=r"other settings \(crf 22 there, 30 now\)"):
        prepare(path, tmp_path / "out", PrepareSettings(crf=30), **QUICK)
    with pytest.raises(ListError, match="can't be read"):
        prepare(tmp_path / "none.csv", tmp_path / "out", **QUICK)
    bad = write_list(tmp_path / "bad.csv", [f"{sources}/cut.mp4 0 -1"])
    with pytest.raises(VideoMAEFastError, match=r"none of 1 files .*cut\.mp4: truncated"):
        prepare(bad, tmp_path / "out", **QUICK)
    with (
        Journal(tmp_path / "out/prepare.jsonl", PrepareSettings()),
        pytest.raises(UsageError, match=r"another process prepares files here \(process"),
    ):
        prepare(path, tmp_path / "out", **QUICK)


def test_reading_speed_is_reported(sources: Path, tmp_path: Path) -> None:
    slow = write_video(tmp_path / "slow.mp4", 250, size=(640, 480), options={"g": "250"})
    path = write_list(tmp_path / "train.csv", [f"{slow} 0 -1", f"{sources}/a/1.mp4 0 -1"])
    done = prepare(path, tmp_path / "out", workers=1, speed_files=4)
    assert done.speed is not None
    assert (done.speed.files, done.speed.clips) == (2, 8)
    assert done.speed.ratio == done.speed.after / done.speed.before > 1.5
    report = json.loads(done.report.read_text())
    assert report["reading_speed"]["ratio"] == done.speed.ratio
    assert report["settings"]["gop"] == 16
    assert report["frames"] == 255
    assert report["source_bytes"] == slow.stat().st_size + (sources / "a/1.mp4").stat().st_size


def test_names_keep_the_tree_and_never_collide() -> None:
    names = Names(["old/1.mp4"])
    given = {
        "a/1.mp4": "a/1.mp4",
        "b/1.mp4": "b/1.mp4",
        "/a/1.mp4": "a/1~2.mp4",
        "A/1.mp4": "A/1~3.mp4",  # the same file where case does not count
        "b/1.avi": "b/1.avi.mp4",
        "b/1": "b/1.mp4.mp4",
        "./c//2.mp4": "c/2.mp4",
        "old/1.mp4": "old/1~2.mp4",
        "d/x.y/3.MP4": "d/x.y/3.MP4.mp4",
    }
    given["b/1"] = "b/1~2.mp4"
    assert {path: names.name(path) for path in given} == given
    outside = names.name("../../x.mp4")
    assert ".." not in outside
    assert not outside.startswith("/")


def test_every_path_has_a_name_that_can_be_made(tmp_path: Path) -> None:
    names, made = Names(), set()
    strange = [".", "/", "..", "/..", "//", "", "a/", "/" * 9, "./#", " ", "\udcff", "c.mp4/1.mp4"]
    long = ["x" * 251 + ".avi", "x" * 251 + ".mov", "\u00e9" * 127 + ".", "d/" * 2000 + "1.mp4"]
    for path in [*strange, *long, "C.MP4", "/c.mp4", "c.mp4/2.mp4", "c.mp4", "y.mp4", "y.mp4/1"]:
        name = names.name(path)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        assert name.casefold() not in made
        assert ".." not in Path(name).parts
        made.add(name.casefold())


def test_odd_lines_cost_themselves_only(sources: Path, tmp_path: Path) -> None:
    """A name for ``.`` could not be made, which ended the run without file and line."""
    long = tmp_path / ("x" * 251 + ".mkv")
    write_video(long, 5)
    os.mkfifo(tmp_path / "pipe.mp4")
    lines = [".", "/", "..", f"{sources}/a/1.mp4", "a\0b.mp4", f"{tmp_path}/pipe.mp4", str(long)]
    path = write_list(tmp_path / "train.csv", [f"{line} 0 -1" for line in lines])
    done = prepare(path, tmp_path / "out", **QUICK)
    assert (done.lines, done.bad) == (2, 5)
    bad = [json.loads(line) for line in done.bad_files.read_text().splitlines()]
    assert [(one["line"], one["list_path"]) for one in bad] == [
        (line, str(path)) for line in (1, 2, 3, 5, 6)
    ]
    assert prepare(path, tmp_path / "out", **QUICK).lines == 2


@pytest.mark.parametrize("content", ["", "{}", "[]", "\0\0", "[" * 20_000])
def test_a_damaged_report_is_named(sources: Path, tmp_path: Path, content: str) -> None:
    path = write_list(tmp_path / "train.csv", [f"{sources}/a/1.mp4 0 -1"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out/train.csv.report.json").write_text(content)
    with pytest.raises(UsageError, match=r"train\.csv\.report\.json: can't be read.*remove it"):
        prepare(path, tmp_path / "out", **QUICK)


def test_journal_keeps_whole_lines_and_any_name(tmp_path: Path) -> None:
    path, settings = tmp_path / "prepare.jsonl", PrepareSettings()
    strange = os.fsdecode(b"/x/\xff\xfe\n\r.mp4")
    good = Record(strange, (3, 4), "x.mp4", Transcoded(1, 2, 2, 9, "30000/1001", "h264", 3, 3))
    bad = Record("/y", None, kind="missing", reason="no such file")
    with Journal(path, settings) as journal:
        journal.add(bad)
        journal.add(good)
    with path.open("ab") as file:
        file.write(b'{"source": "/z", "sta')
    with Journal(path, settings) as journal:
        assert journal.records == {"/y": bad, strange: good}
        journal.add(Record("/y", (1, 1), kind="unreadable", reason="0 bytes"))
    with Journal(path, settings) as journal:
        assert journal.records["/y"].reason == "0 bytes"
    path.write_text(path.read_text(errors="surrogateescape").replace('"kind"', '"king"', 1),
                    errors="surrogateescape")  # fmt: skip
    with pytest.raises(UsageError, match=r"prepare\.jsonl:2: found .*expected what became"):
        Journal(path, settings)


def test_journal_takes_back_a_line_that_did_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "prepare.jsonl"
    with Journal(path, PrepareSettings()) as journal:
        whole = path.read_bytes()
        with largest_file(len(whole) + 7), pytest.raises(OutputError, match="No space left"):
            journal.add(Record("/y", None, kind="missing", reason="no such file"))
    assert path.read_bytes() == whole
