"""``cache``: a list decoded beforehand, resumed, limited, with bad and damaged files."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import time
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from tests.support.cache_entries import first_version
from videomae_fast.cli import main
from videomae_fast.data import DECODERS, CachedVideos, ListError, open_video
from videomae_fast.data.cache import CacheFill, fill_cache
from videomae_fast.data.cache import fill as fill_module
from videomae_fast.data.cache import space as space_module
from videomae_fast.data.cache.fill import Filled, FillJob, fill_video
from videomae_fast.data.errors import OutputError
from videomae_fast.errors import UsageError, VideoMAEFastError
from videomae_fast.progress import ProgressLine

GB = 10**9
PYAV = DECODERS["pyav"]


def _cursed(job: FillJob) -> Filled:
    """Crashes, hangs or runs out of disk by the file's name, and else fills."""
    if "crash" in job.path.name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hang" in job.path.name:
        time.sleep(1000)
    if "full" in job.path.name:
        space_module.os.posix_fallocate = _full  # in this process alone
    return fill_video(job)


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def numbers(done: CacheFill) -> tuple[int, ...]:
    return done.added, done.before, done.no_room, done.bad, done.others


def sizes(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.glob("*.frames")]


def check_hits(folder: Path, paths: Sequence[Path], count: int) -> None:
    """``count`` of the videos come from the cache, and all are as the decoder gives them."""
    cache = CachedVideos(folder, 0, fill=False)
    for path in paths:
        with cache.open(path, PYAV) as cached, open_video(path) as video:
            assert cached.frame_count == video.frame_count
            ids = range(0, video.frame_count, 3)
            np.testing.assert_array_equal(cached.read(ids), video.read(ids))
    assert cache.counts.hits == count


def test_a_list_is_filled_and_then_there_already(
    clips: Path, clip_list: Path, tmp_path: Path
) -> None:
    folder, shown = tmp_path / "cache", StringIO()
    clip_list.write_text(clip_list.read_text() + f"{clips}/clip0.mp4 0 -1\nframes 1 9\n")
    done = fill_cache(
        clip_list, folder, GB, workers=2, progress=lambda n: ProgressLine(n, "files", stream=shown)
    )
    assert numbers(done) == (6, 0, 0, 0, 0)
    assert (done.videos, done.folders, done.bytes) == (6, 1, sum(sizes(folder)))
    assert done.bad_files.read_text() == ""
    assert "files 6/6 " in shown.getvalue()
    assert "cached 6  MB 9  no room 0  bad 0  ETA 0:00:00" in shown.getvalue()
    check_hits(folder, sorted(clips.glob("*.mp4")), 6)
    before = {path.name: path.stat().st_ino for path in folder.glob("*.frames")}
    again = fill_cache(clip_list, folder, GB)
    assert numbers(again) == (0, 6, 0, 0, 0)
    assert {path.name: path.stat().st_ino for path in folder.glob("*.frames")} == before


def test_it_goes_on_after_a_stop_and_replaces_what_is_damaged(
    clips: Path, clip_list: Path, tmp_path: Path
) -> None:
    folder, told = tmp_path / "cache", list[str]()
    fill_cache(clip_list, folder, GB)
    first, second, *_ = sorted(folder.glob("*.frames"))
    first.unlink()
    os.truncate(second, 5000)
    (folder / (first.name + ".partial")).write_bytes(b"x" * 1000)
    done = fill_cache(clip_list, folder, GB, log=told.append)
    assert numbers(done) == (2, 4, 0, 0, 0)
    assert len(told) == 1
    assert f"{second} (frames of {clips}" in told[0]
    assert done.bytes == sum(sizes(folder))
    assert not list(folder.glob("*.partial"))
    check_hits(folder, sorted(clips.glob("*.mp4")), 6)


def test_entries_of_another_version_are_replaced_and_counted(
    clip_list: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cache"
    fill_cache(clip_list, folder, GB)
    good = {entry: entry.read_bytes() for entry in folder.glob("*.frames")}
    for entry in list(good)[:2]:
        first_version(entry)
    words = ["cache", str(clip_list), "--folder", str(folder), "--limit-gb", "1"]
    assert main([*words, "--workers", "1"]) == 0
    told = capsys.readouterr()
    assert "cached     6 of 6 videos (4 were there already)" in told.out
    assert "replaced   2 entries of another version of this library" in told.out
    assert {entry: entry.read_bytes() for entry in folder.glob("*.frames")} == good


@pytest.mark.parametrize("refused", ["open_entry", "room"])
def test_a_folder_that_may_not_be_used_makes_no_video_bad(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    job = FillJob(min(clips.glob("*.mp4")), tmp_path / "cache", GB, "pyav")
    assert fill_video(job).reason == ""

    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    owner = fill_module if refused == "open_entry" else fill_module.Space
    monkeypatch.setattr(owner, refused, denied)
    with pytest.raises(OutputError, match="cache: can't be used: Permission denied"):
        fill_video(job)


def test_what_is_too_large_for_the_room_left_is_passed_over(
    clips: Path, clip_list: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    fill_cache(clip_list, folder, GB)
    by_size = sorted(sizes(folder))  # in the order of the list, which is turned round
    shutil.rmtree(folder)
    clip_list.write_text("".join(reversed(clip_list.read_text().splitlines(keepends=True))))
    limit = by_size[5] + by_size[0] + by_size[1]
    done = fill_cache(clip_list, folder, limit)
    assert numbers(done) == (2, 0, 4, 0, 0)  # the largest, and the first that fits beside it
    assert done.bytes == sum(sizes(folder)) <= limit
    check_hits(folder, sorted(clips.glob("*.mp4")), 2)

    full = fill_cache(clip_list, folder, done.bytes)
    assert numbers(full) == (0, 2, 4, 0, 0)


def test_bad_files_cost_themselves_only(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill_module, "fill_video", _cursed)
    for name in ("crash.mp4", "hang.mp4"):
        shutil.copy(clips / "clip0.mp4", tmp_path / name)
    (tmp_path / "empty.mp4").touch()
    names = ["crash.mp4", "empty.mp4", "hang.mp4", "missing.mp4", "empty.mp4"]
    lines = [f"{name} 0 -1\n" for name in names] + [f"{clips}/clip{i}.mp4 0 -1\n" for i in (0, 1)]
    (tmp_path / "list.csv").write_text("".join(lines))
    done = fill_cache(
        tmp_path / "list.csv", tmp_path / "cache", GB, root=tmp_path, workers=2, time_limit=3.0
    )
    assert numbers(done) == (2, 0, 0, 4, 0)
    told = [json.loads(line) for line in done.bad_files.read_text().splitlines()]
    assert {(Path(one["path"]).name, one["line"], one["reason"]) for one in told} == {
        ("crash.mp4", 1, "its process was ended by SIGSEGV"),
        ("empty.mp4", 2, "0 bytes"),
        ("empty.mp4", 5, "0 bytes"),
        ("hang.mp4", 3, "took longer than 3 s"),
        ("missing.mp4", 4, "no such file"),
    }
    assert all(one["list_path"] == str(tmp_path / "list.csv") for one in told)
    check_hits(tmp_path / "cache", [clips / "clip0.mp4", clips / "clip1.mp4"], 2)


def test_errors_that_end_it(
    clips: Path, clip_list: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    with pytest.raises(ListError):
        fill_cache(tmp_path / "none.csv", folder, GB)
    lists = {"folders.csv": "frames 1 9\n", "bad.csv": "none.mp4 0 -1\n"}
    for name, lines in lists.items():
        (tmp_path / name).write_text(lines)
    with pytest.raises(UsageError, match="only frame folders"):
        fill_cache(tmp_path / "folders.csv", folder, GB)
    with pytest.raises(VideoMAEFastError, match=r"none of 1 videos.*none\.mp4: no such file"):
        fill_cache(tmp_path / "bad.csv", folder, GB)
    shutil.copy(clips / "clip0.mp4", tmp_path / "full.mp4")
    (tmp_path / "full.csv").write_text(f"{clips}/clip1.mp4 0 -1\n{tmp_path}/full.mp4 0 -1\n")
    monkeypatch.setattr(fill_module, "fill_video", _cursed)
    with pytest.raises(OutputError, match=r"No space left on device.*What is done is kept"):
        fill_cache(tmp_path / "full.csv", folder, GB)
    check_hits(folder, [clips / "clip1.mp4", tmp_path / "full.mp4"], 1)


def test_the_command_says_what_it_did(
    clip_list: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.mp4").touch()
    with clip_list.open("a") as file:
        file.write(f"{tmp_path}/empty.mp4 0 -1\nframes 1 9\n")
    words = ["cache", str(clip_list), "--folder", str(tmp_path / "cache"), "--workers", "1"]
    assert main([*words, "--limit-gb", "0.005"]) == 0
    told = capsys.readouterr()
    assert "cached     4 of 7 videos (0 were there already)" in told.out
    assert f"folder     {tmp_path}/cache: 4.65 MB of 5 MB" in told.out
    assert "no room    for 2 videos" in told.out
    assert "folders    1 lines" in told.out
    assert f"bad files  1 videos can't be decoded: {tmp_path}/cache/train.csv.bad_f" in told.out
    assert "left " not in told.out
    assert "files 7/7 " in told.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--folder {clips}/clip0.mp4 --limit-gb 1", "is a file: name a folder"),
        ("--folder cache --limit-gb 0", "--limit-gb must be more than 0, not 0"),
        ("--folder cache --limit-gb nan", "--limit-gb must be more than 0, not nan"),
        ("--folder cache --limit-gb 1 --decoder none", "--decoder: decoder 'none' is not one of"),
        ("--folder cache --limit-gb 1 --workers 0", "--workers must be 1 or more"),
    ],
)
def test_refusals_say_what_to_do(
    clips: Path, clip_list: Path, words: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", str(clip_list), *words.format(clips=clips).split()]) == 2
    assert told in capsys.readouterr().err
