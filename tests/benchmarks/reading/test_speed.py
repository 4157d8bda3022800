"""Reading videos: the official path as transcribed, ours against it, and what is recorded."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.measure.checks import UncheckedError
from benchmarks.official.reading import OfficialReader, crop_box, frame_numbers
from benchmarks.reading import material as reading_material
from benchmarks.reading import speed as data_speed
from benchmarks.reading.contenders import OnCore, Views, compare
from benchmarks.reading.material import Material, Rendering, material, render
from benchmarks.reading.speed import main
from benchmarks.report.plots import plot_data_speed
from benchmarks.report.reading import data_table, factor
from benchmarks.report.records import main as tables
from tests.support.videos import write_video
from videomae_fast.data.cache import CachedVideos
from videomae_fast.data.decoders import open_video
from videomae_fast.data.reading import ReadSettings, read
from videomae_fast.data.views.crops import OFFSETS, SCALE_PAIRS, multi_scale_box
from videomae_fast.data.views.sampling import frame_ids, possible_starts
from videomae_fast.errors import VideoMAEFastError

pytestmark = pytest.mark.skipif(find_spec("decord") is None, reason="decord is not installed")
HAS_DALI = find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None
READING = ReadSettings(frames=8, size=(32, 32), samples=3, decoder="pyav")
TINY = ["--frames", "8", "--stride", "2", "--size", "32", "--samples", "2", "--clips", "2",
        "--rounds", "2", "--workers", "1", "--pipeline-seconds", "0.2"]  # fmt: skip
VP9 = {"g": "12", "deadline": "realtime", "cpu-used": "8"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two videos that can be compared."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a.mp4", 40)
    write_video(folder / "b.mp4", 30, size=(84, 112))
    return folder


@pytest.fixture
def videos(folder) -> Material:
    files = sorted(folder.iterdir())
    return Material("own", {"raw": files}, {"raw": folder / "train.csv"}, {})


def word(number: int, bound: int) -> int:
    """The least random word that gives ``number`` of 0 ... bound - 1."""
    return -(-(number << 64) // bound)


@pytest.mark.parametrize("duration", [1, 2, 5, 9, 14, 15, 16, 17, 18, 40, 63, 64, 65])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_frame_numbers_are_the_librarys(duration, stride):
    starts = possible_starts(duration, 8, stride)
    for start in range(starts):
        ids = frame_ids(duration, start, 8, stride).tolist()
        assert frame_numbers(duration, 8, stride, word(start, starts)) == ids


@pytest.mark.parametrize("size", [(340, 256), (256, 340), (456, 256), (225, 400), (64, 48)])
def test_crops_are_the_librarys(size):
    for pair in range(len(SCALE_PAIRS)):
        for place in range(len(OFFSETS)):
            words = word(pair, len(SCALE_PAIRS)), word(place, len(OFFSETS))
            assert crop_box(*size, 224, *words) == multi_scale_box(*size, (224, 224), pair, place)


def test_the_official_path_gives_normalised_clips_and_masks(videos):
    (request,) = videos.requests("raw", [0], 3, 2)
    found = OfficialReader(READING)(request)
    with open_video(request.file, "decord") as video:
        frames = video.read(found.ids)
    x, y, width, height = found.boxes[1]
    clip, encoder, decoder = found.samples[1]
    assert clip.shape == (3, 8, 32, 32)
    assert clip.dtype == torch.float32
    whole = torch.from_numpy(frames[:, y : y + height, x : x + width]).double() / 255
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)
    expected = ((whole - mean) / std).mean((0, 1, 2))
    torch.testing.assert_close(clip.double().mean((1, 2, 3)), expected, atol=0.02, rtol=0)
    assert encoder.shape == decoder.shape == (4, 4)
    assert encoder.sum() == 4 * 3  # int(.9 * 4) of 4 positions
    assert decoder.sum() == 4 * 2
    assert found.pixels().shape == (3, 8, 32, 32, 3)
    with pytest.raises(ValueError, match="square"):
        OfficialReader(replace(READING, size=(32, 48)))


def test_ours_is_the_official_path(videos):
    requests = videos.requests("raw", range(6), 3, 2)
    truth = [OfficialReader(READING)(request) for request in requests]
    theirs = Views([t.pixels() for t in truth], [t.ids for t in truth], [t.boxes for t in truth])
    found = OnCore(READING, torch.device("cpu")).views(requests)
    result = compare(theirs, found)
    assert result.ids
    assert result.boxes
    assert result.most <= 1
    assert result.passed(converts=False)
    assert len({ids[0] for ids in found.ids}) > 2  # the starts differ
    found.pixels[2][1, 3, 5, 7, 2] ^= 2
    assert compare(theirs, found).most in (1, 2, 3)
    found.pixels[2][1, 3, 5, 7, 2] ^= 128
    assert not compare(theirs, found).passed(converts=False)
    assert compare(theirs, found).passed(converts=True)
    moved = replace(theirs, ids=[*theirs.ids[1:], theirs.ids[0]])
    assert not compare(moved, theirs).passed(converts=True)
    with pytest.raises(VideoMAEFastError, match="views of"):
        compare(theirs, replace(found, pixels=found.pixels[1:]))


def test_what_the_cache_lacks_is_not_taken_for_cached(videos, tmp_path):
    cache = CachedVideos(tmp_path / "cache", 10**7)
    reader = OnCore(replace(READING, cache=cache), torch.device("cpu"))
    requests = videos.requests("raw", range(2), 3, 2)
    with pytest.raises(VideoMAEFastError, match="0 of 2 videos came from the cache"):
        reader.views(requests)
    assert reader.views(requests).ids  # now they are in it


def test_a_run_is_recorded_and_shown(folder, tmp_path, capsys):
    threads = torch.get_num_threads()
    try:
        assert main(["--videos", str(folder), *TINY, "--out", str(tmp_path)]) == 0
    finally:
        torch.set_num_threads(threads)
    (path,) = tmp_path.glob("*.json")
    record = json.loads(path.read_text())
    assert record["kind"] == "data speed"
    assert record["settings"]["samples"] == 2
    assert record["versions"]["decord"]
    assert [video["name"] for video in record["videos"]] == ["a.mp4", "b.mp4"]
    assert record["videos"][1]["raw"]["frames_per_key_frame"] == 10
    names = {(run["contender"], run["form"]) for run in record["runs"]}
    assert names >= {(n, f) for n in ("official", "ours, pyav") for f in ("raw", "prepared")}
    for run in record["runs"]:
        parts = run["seconds"]
        assert len(parts["total"]) == 2
        whole = parts["decode"][0] + 2 * (parts["view"][0] + parts["join"][0])
        assert parts["total"][0] == pytest.approx(whole)
        total = run["summary"]["total"]["median"]
        assert run["views_per_s"] == pytest.approx(2 / total)
        assert run["decodes_per_s"] == pytest.approx(1 / total)
    assert ("ours, cache", "cached") in names
    assert ("official", "cached") not in names
    assert all(row["passed"] for row in record["checks"])
    assert [row["form"] for row in record["pipeline"]] == ["raw", "prepared", "cached"]
    assert all(row["views_per_s"] > 0 for row in record["pipeline"])
    table = path.with_suffix(".md").read_text()
    assert table.strip() in capsys.readouterr().out
    assert tables([str(path)]) == 0
    assert capsys.readouterr().out.strip() == table.strip()
    assert path.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    ours = next(run for run in record["runs"] if run["contender"] == "ours, pyav")
    ratio = factor(record, ours, "raw")
    assert ratio is not None
    assert f"{ratio:.2f}×" in table
    record["checks"][1]["passed"] = False
    with pytest.raises(UncheckedError, match="differs"):
        data_table(record)
    with pytest.raises(UncheckedError, match="differs"):
        plot_data_speed(record, tmp_path / "plot.png")
    del record["checks"][1]
    with pytest.raises(UncheckedError, match="never checked"):
        data_table(record)


def test_what_differs_is_not_timed(folder, tmp_path, monkeypatch, capsys):
    def wrong(request, reading):
        piece = read(request, reading)
        return replace(piece, data=255 - piece.data)

    monkeypatch.setattr("benchmarks.reading.contenders.read", wrong)
    monkeypatch.setattr(data_speed, "measure", lambda *_, **__: pytest.fail("timed"))
    assert main(["--videos", str(folder), *TINY, "--out", str(tmp_path)]) == 1
    assert "no table and no plot: ours, pyav, raw: differs" in capsys.readouterr().err
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


@pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
def test_a_device_decoder(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("a.mkv", "b.mkv"):
        write_video(videos / name, 40, codec="libvpx-vp9", options=VP9)
    words = ["--device-decoders", "dali", "--out", str(tmp_path)]
    assert main(["--videos", str(videos), *TINY, *words]) == 0
    (path,) = tmp_path.glob("*.json")
    record = json.loads(path.read_text())
    (run,) = [run for run in record["runs"] if run["contender"] == "ours, dali"]
    assert (run["form"], run["place"]) == ("raw", "cpu")
    assert run["views_per_s"] == pytest.approx(1 / run["summary"]["view"]["median"])
    assert "codec h264" in record["failed"]["ours, dali, prepared"]
    ways = [(row["form"], row.get("device_decoder")) for row in record["pipeline"]]
    assert ("raw", "dali") in ways
    assert "codec h264" in path.with_suffix(".md").read_text()


def test_material_says_what_it_leaves_out(folder, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    write_video(videos / "a.mp4", 40)
    write_video(videos / "short.mp4", 10)
    write_video(videos / "tight.mp4", 40, size=(112, 30))
    write_video(videos / "ten.mp4", 40, pixels="yuv420p10le")
    write_video(videos / "more.mp4", 40)
    (videos / "broken.mp4").write_bytes(b"no video")
    settings = {"count": 1, "seconds": 1.0, "span": 16, "side": 32, "cache_bytes": 10**7}
    found = material(tmp_path / "work", videos=videos, **settings)
    assert [path.name for path in found.forms["raw"]] == ["a.mp4"]
    assert found.forms["prepared"][0].is_file()
    assert found.left_out["short.mp4"] == "10 frames, a clip spans 16"
    assert "short side 30" in found.left_out["tight.mp4"]
    assert "yuv420p10le" in found.left_out["ten.mp4"]
    assert "enough" in found.left_out["more.mp4"]
    assert set(found.left_out) == {"short.mp4", "tight.mp4", "ten.mp4", "more.mp4", "broken.mp4"}
    with pytest.raises(VideoMAEFastError, match="takes 0 of 1 videos"):
        material(tmp_path / "full", videos=videos, **{**settings, "cache_bytes": 10**5})
    with pytest.raises(VideoMAEFastError, match="no video to time with"):
        material(tmp_path / "none", videos=videos, **{**settings, "span": 100})


def test_without_videos_some_are_rendered(tmp_path, monkeypatch):
    monkeypatch.setattr(reading_material, "REAL", tmp_path / "absent")
    settings = {"count": 1, "seconds": 1.0, "span": 16, "side": 224, "cache_bytes": 10**8}
    found = material(tmp_path / "work", videos=None, **settings)
    assert found.source == "rendered"
    told = found.described()[0]
    assert (told["raw"]["width"], told["raw"]["height"], told["raw"]["frames"]) == (340, 256, 24)
    assert told["raw"]["frames_per_key_frame"] == 24
    assert told["prepared"]["frames_per_key_frame"] == 12
    path = render(Rendering(tmp_path / "b.mp4", 1, 2, width=64, height=96))
    with open_video(path) as video:
        frames = video.read([0, 1])
    assert frames.shape == (2, 96, 64, 3)
    assert np.ptp(frames[0].astype(int)) > 20
