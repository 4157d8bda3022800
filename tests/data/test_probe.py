"""``probe``: what it says of files, in the order of the list, and of files that are bad."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests.support.videos import numbered_frame, remux, write_audio, write_video
from videomae_fast.data import DecodeError, load_list
from videomae_fast.data import probe as probe_module
from videomae_fast.data.probe import Facts, ProbeJob, ProbeSummary, probe, probe_file


def facts(path: Path, *, decode: bool = False) -> Facts:
    return probe_file(ProbeJob(0, path, 0, -1, "", decode))


def test_facts_of_a_plain_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "plain.mp4", 60)
    assert facts(path) == Facts(
        codec="h264",
        container="mov,mp4,m4a,3gp,3g2,mj2",
        pixel_format="yuv420p",
        width=112,
        height=84,
        rotation=0,
        mirrored=False,
        frames=60,
        container_frames=60,
        decoded_frames=None,
        rate=25.0,
        seconds=2.4,
        variable_rate=False,
        longest_gop=12,
        b_frames=True,
        numbered_by_decoding=None,
    )
    assert facts(path, decode=True).decoded_frames == 60
    plain = write_video(tmp_path / "p.mp4", 30, options={"g": "20", "bf": "0", "sc_threshold": "0"})
    assert facts(plain).b_frames is False
    assert facts(plain).longest_gop == 20
    # The last group counts as well.
    assert (
        facts(
            write_video(tmp_path / "l.mp4", 30, options={"g": "250", "sc_threshold": "0"})
        ).longest_gop
        == 30
    )
    assert facts(write_video(tmp_path / "one.mp4", 1)).frames == 1


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_rate(tmp_path: Path, suffix: str) -> None:
    steady = [round(number * 1000 / 29.97) for number in range(60)]  # 33 and 34 ms
    one = facts(write_video(tmp_path / f"steady.{suffix}", 60, times=steady))
    assert one.variable_rate is False
    assert one.rate == pytest.approx(29.97, rel=1e-3)
    gap = [*steady[:30], *(time + 40 for time in steady[30:])]
    assert facts(write_video(tmp_path / f"gap.{suffix}", 60, times=gap)).variable_rate is True


def test_kinds_of_files(tmp_path: Path) -> None:
    turned = remux(write_video(tmp_path / "p.mp4"), tmp_path / "t.mp4", degrees=90)
    assert (facts(turned).rotation, facts(turned).width, facts(turned).height) == (90, 112, 84)
    ten = facts(write_video(tmp_path / "ten.mkv", pixels="yuv420p10le"))
    assert (ten.pixel_format, ten.container, ten.container_frames) == (
        "yuv420p10le", "matroska,webm", None
    )  # fmt: skip
    raw = facts(write_video(tmp_path / "raw.264"))
    assert (raw.frames, raw.longest_gop, raw.variable_rate) == (60, None, None)


def damaged(path: Path) -> Path:
    """A video whose frame 8 can't be decoded."""
    rng = np.random.default_rng(0)
    write_video(
        path,
        30,
        options={"g": "1"},
        make=lambda number, width, height: rng.integers(0, 256, (height, width, 3), np.uint8),
    )
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][8]
    content = bytearray(path.read_bytes())
    content[packet.pos + 8 : packet.pos + packet.size] = bytes(packet.size - 8)
    path.write_bytes(content)
    return path


def test_damage_inside_is_found_by_decoding_all(tmp_path: Path) -> None:
    path = damaged(tmp_path / "damaged.mp4")
    assert facts(path).frames == 30
    with pytest.raises(DecodeError, match=r"^frame 8 of 30 can't be decoded$"):
        facts(path, decode=True)


def crash_or_hang(job: ProbeJob) -> Facts:
    if job.path.name == "crashes.mp4":
        os.kill(os.getpid(), signal.SIGSEGV)
    if job.path.name == "hangs.mp4":
        time.sleep(1000)
    if job.path.name == "slow.mp4":
        time.sleep(0.3)
    return probe_file(job)


def test_odd_lines_cost_themselves_only_and_good_ones_are_read_back(tmp_path: Path) -> None:
    """``#h.mp4`` was written as a comment: lost without a word."""
    names = ["#h.mp4", " s.mp4", '"q".mp4', '"', "plain.mp4"]
    video = write_video(tmp_path / "plain.mp4", 5).read_bytes()
    for name in names:
        (tmp_path / name).write_bytes(video)
    os.mkfifo(tmp_path / "pipe.mp4")
    good = ['"#h.mp4"', '" s.mp4"', '"""q"".mp4"', '"', "plain.mp4"]
    odd = [".", "/", "a\0b.mp4", "pipe.mp4"]
    path = tmp_path / "train.csv"
    path.write_text("".join(f"{line} 0 -1\n" for line in [*odd, *good]))
    summary = probe(
        path, tmp_path / "m.jsonl", root=tmp_path, good_list=tmp_path / "good.csv", workers=2
    )
    assert (summary.videos, summary.bad.total()) == (5, 4)
    entries = load_list(tmp_path / "good.csv")
    assert [entries[index].path for index in range(len(entries))] == names


def test_manifest_summary_and_good_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("slow", "crashes", "fine", "hangs", "a b"):
        write_video(tmp_path / f"{name}.mp4", 10)
    (tmp_path / "empty.mp4").touch()
    write_audio(tmp_path / "audio.m4a")
    names = ["slow.mp4", "crashes.mp4", "fine.mp4", "hangs.mp4", "empty.mp4", "audio.m4a",
             "none.mp4", "a b.mp4", "fine.mp4"]  # fmt: skip
    path = tmp_path / "train.csv"
    path.write_text("# comment\n" + "".join(f"{name} {i}\n" for i, name in enumerate(names)))
    monkeypatch.setattr(probe_module, "probe_file", crash_or_hang)
    summary = probe(
        path,
        tmp_path / "new" / "manifest.jsonl",
        format="labels",
        root=tmp_path,
        good_list=tmp_path / "good.csv",
        workers=2,
        time_limit=3,
    )
    text = (tmp_path / "new" / "manifest.jsonl").read_text()
    lines: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    assert [Path(line["path"]).name for line in lines] == names
    assert [line["line"] for line in lines] == list(range(2, 11))
    assert [line["readable"] for line in lines] == [
        True, False, True, False, False, False, False, True, True
    ]  # fmt: skip
    assert [line["reason"] for line in lines if not line["readable"]] == [
        "its process was ended by SIGSEGV",
        "took longer than 3 s",
        "0 bytes",
        "no video stream",
        "no such file",
    ]
    assert lines[0]["frames"] == 10
    assert lines[0]["reason"] is None
    assert lines[1]["frames"] is None
    assert lines[0].keys() == lines[1].keys()
    assert (summary.lines, summary.videos, summary.frames) == (9, 4, 40)
    assert summary.bad.total() == 5
    assert summary.codecs == {"h264": 4}
    assert summary.sizes == {"112x84": 4}
    assert summary.gops == {10: 4}
    good = load_list(tmp_path / "good.csv", "labels")
    assert [(good[i].path, good[i].label) for i in range(len(good))] == [
        ("slow.mp4", 0), ("fine.mp4", 2), ("a b.mp4", 7), ("fine.mp4", 8)
    ]  # fmt: skip


def test_frame_folders(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(3, 8):
        Image.fromarray(numbered_frame(number)).save(folder / f"{number}.png")
    path = tmp_path / "list.csv"
    path.write_text(f"{folder} 3 5\n{folder} 3 6\n{tmp_path}/none 1 5\n")
    summary = probe(path, tmp_path / "m.jsonl", name_pattern="{}.png")
    lines = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert [line["readable"] for line in lines] == [True, False, False]
    assert (lines[0]["codec"], lines[0]["frames"], lines[0]["width"]) == ("png", 5, 112)
    assert lines[1]["reason"] == "image 8.png is missing"
    assert lines[2]["reason"] == "no such folder"
    assert (summary.folders, summary.videos) == (1, 0)
    (folder / "5.png").unlink()
    assert probe(path, tmp_path / "m.jsonl", name_pattern="{}.png").folders == 1
    assert probe(path, tmp_path / "m.jsonl", name_pattern="{}.png", decode=True).folders == 0


def test_summary_counts() -> None:
    summary = ProbeSummary()
    summary.add(None, "0 bytes")
    summary.add(None, "0 bytes")
    assert summary.bad == {"0 bytes": 2}
    assert (summary.lines, summary.videos) == (2, 0)
