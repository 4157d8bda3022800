"""Key frames of lists, the files they are in, and the frame that a time is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.videos import read_number, write_video
from videomae_fast.data.boxes.ava_files import read_boxes
from videomae_fast.data.boxes.clips import KeyFrameClips, key_frame_reading
from videomae_fast.data.boxes.detection_views import DetectionViews
from videomae_fast.data.boxes.entries import (
    KeyFrameList,
    greatest_class,
    read_key_frames,
    with_close_proposals,
)
from videomae_fast.data.boxes.key_frames import frame_at
from videomae_fast.data.boxes.video_files import VideoFiles
from videomae_fast.data.decoders import open_video
from videomae_fast.data.errors import DecodeError, ListError
from videomae_fast.data.order import Draw
from videomae_fast.data.reading import read
from videomae_fast.recipes.box_source import BoxSource

CSV = """\
a,0002,0.100000,0.2,0.5,0.6,3,7
a,0002,0.100000,0.2,0.5,0.6,1,7
a,0002,0.5,0.5,0.75,1.0,2,8
b,0003,,,,,
b,0004,0,0,1,1,4
"""


def write(folder: Path, **files: Any) -> Path:
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_a_box_has_all_of_its_actions(tmp_path: Path) -> None:
    write(tmp_path, a__csv=CSV, out__csv="b,4\n")
    source = BoxSource(tmp_path / "a.csv", exclusions=tmp_path / "out.csv")
    assert greatest_class(source) == 4
    found = read_key_frames(source, 4, 0.8)
    first, second = found.entries
    assert (first.key, first.seconds, first.line) == (("a", "0002"), 2.0, 1)
    assert (second.key, second.line) == (("b", "0004"), 5)
    assert first.labels.tolist() == [[True, False, True, False], [False, True, False, False]]
    boxes, there = first.in_frame(first.boxes, (100, 200))
    assert there.all()
    torch.testing.assert_close(
        boxes, torch.tensor([[20.0, 20.0, 99.0, 59.0], [100.0, 50.0, 149.0, 99.0]])
    )
    # What is scored is what the file says
    truth, said = first.truth(), read_boxes(tmp_path / "a.csv", "annotations")[first.key]
    assert sorted(zip(truth.boxes.tolist(), truth.classes.tolist(), strict=True)) == sorted(
        zip(said.boxes.tolist(), said.classes.tolist(), strict=True)
    )
    assert [one.key for one in found.with_boxes().entries] == [("a", "0002")]


def test_json_counts_pixels(tmp_path: Path) -> None:
    images = [{"id": 5, "movie": "a", "timestamp": "0902", "width": 200, "height": 100}]
    annotations = [{"image_id": 5, "bbox": [20, 20, 80, 40], "action_ids": [1, 3]}]
    persons = [
        {"image_id": 5, "bbox": [20, 20, 80, 40], "score": 0.9},
        {"image_id": 5, "bbox": [20, 20, 80, 40], "score": 0.7},
    ]
    write(tmp_path, a__json={"images": images, "annotations": annotations}, p__json=persons)
    source = BoxSource(tmp_path / "a.json", proposals=tmp_path / "p.json")
    found = read_key_frames(source, 3, 0.8)
    (entry,) = found.entries
    assert (entry.key, entry.seconds, found.note) == (("a", "0902"), 902.0, "1 persons below 0.8")
    assert entry.persons.tolist() == entry.boxes.tolist() == [[20.0, 20.0, 99.0, 59.0]]
    boxes, _ = entry.in_frame(entry.boxes, (50, 100))  # a file of half the size
    assert boxes.tolist() == [[10.0, 10.0, 49.5, 29.5]]
    assert entry.truth().boxes.tolist() == [[0.1, 0.2, 0.5, 0.6]] * 2


def test_persons_are_matched_by_time(tmp_path: Path) -> None:
    write(
        tmp_path,
        a__csv=CSV,
        p__csv="a,2,0.1,0.2,0.5,0.6,,0.9\na,2,0,0,1,1,0.5\na,7.5,0,0,1,1,0.95\nc,2,0,0,1,1,,1\n",
    )
    source = BoxSource(tmp_path / "a.csv", proposals=tmp_path / "p.csv")
    found = read_key_frames(source, 4, 0.8)
    assert [one.key for one in found.entries] == [("a", "0002"), ("b", "0004"), ("a", "7.5")]
    assert [len(one.persons) for one in found.entries] == [1, 0, 1]
    assert found.note == "1 persons below 0.8, 1 persons of other videos"
    assert found.entries[0].scores.tolist() == [0.9]


def test_close_persons_take_the_actions_of_a_box(tmp_path: Path) -> None:
    write(tmp_path, a__csv=CSV, p__csv="a,2,0.1,0.2,0.51,0.6,,0.9\na,2,0.1,0.2,0.9,0.9,,0.9\n")
    source = BoxSource(tmp_path / "a.csv", proposals=tmp_path / "p.csv")
    entry = read_key_frames(source, 4, 0.8).entries[0]
    more = with_close_proposals(entry, 0.9)
    assert more.boxes.tolist() == [*entry.boxes.tolist(), [0.1, 0.2, 0.51, 0.6]]
    assert more.labels[2].tolist() == entry.labels[0].tolist()


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({"a__csv": "a,2,0,0,1,1,9\n"}, {}, r"a\.csv:1: class 9 is none of 1 to 4"),
        ({"a__csv": "\na,-2,0,0,1,1,1\n"}, {}, r"a\.csv:2: timestamp '-2' is no number of sec"),
        ({"a__csv": "a,nan,0,0,1,1,1\n"}, {}, "timestamp 'nan' is no number"),
        ({"a__csv": ""}, {}, "has no key frame"),
        ({"a__csv": CSV, "p__csv": "a,2,0,0,1,1\n"}, {"proposals": "p.csv"}, r"p\.csv:1: 6 values"),
        ({"a__csv": CSV, "p__csv": "z,2,0,0,1,1,,1\n"}, {"proposals": "p.csv"}, "no box is left"),
        ({"a__csv": CSV, "p__json": []}, {"proposals": "p.json"}, "is csv: give proposals as csv"),
        ({"a__csv": CSV, "p__csv": "a,2,0,0,1,1,,7\n"}, {"proposals": "p.csv"}, "7 of a person"),
        ({"a__csv": CSV, "x__csv": "a,b\n"}, {"exclusions": "x.csv"}, r"x\.csv: timestamp 'b'"),
        ({"a__csv": CSV, "x__csv": "a\n"}, {"exclusions": "x.csv"}, r"x\.csv:1: 1 values"),
    ],
)
def test_what_is_wrong_is_named(
    files: dict[str, Any], options: dict[str, str], message: str, tmp_path: Path
) -> None:
    write(tmp_path, **files)
    given = {name: tmp_path / file for name, file in options.items()}
    with pytest.raises(ListError, match=message):
        read_key_frames(BoxSource(tmp_path / "a.csv", **given), 4, 0.8)  # type: ignore[arg-type]


def test_videos_go_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "frames/a").mkdir(parents=True)
    (tmp_path / "deep").mkdir()
    for name in ("b.mkv", "c.d.mp4", "deep/e.webm", "f_000010_000020.mp4", "f_000030_000040.mp4"):
        (tmp_path / name).touch()
    plain = VideoFiles(BoxSource(tmp_path / "l.csv", tmp_path, begin=900.0))
    for video, name in (("b", "b.mkv"), ("b.mkv", "b.mkv"), ("c.d", "c.d.mp4"),
                        ("deep/e", "deep/e.webm"), ("frames/a", "frames/a")):  # fmt: skip
        part = plain.part(video, 902.0)
        assert part is not None, video
        assert (part.path, part.begin) == (tmp_path / name, 900.0)
    assert plain.part("nobody", 902.0) is None
    trimmed = VideoFiles(BoxSource(tmp_path / "l.csv", tmp_path, trimmed=True))
    found = [trimmed.part("f", seconds) for seconds in (15.0, 31.5)]
    assert [one.begin for one in found if one is not None] == [10.0, 30.0]
    assert trimmed.part("b", 2.0) is None
    with pytest.raises(ListError, match=r"its root .*none can't be read"):
        VideoFiles(BoxSource(tmp_path / "l.csv", tmp_path / "none"))


def test_images_are_counted_by_their_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for number in (0, 1, 4):
        (folder / f"a_{number:06}.jpg").touch()
    (folder / "a_000009.png").touch()
    source = BoxSource(
        tmp_path / "l.csv", tmp_path, name_pattern="{video}_{:06}.jpg", first_frame=0
    )
    files = VideoFiles(source)
    assert files.pattern("a") == "a_{:06}.jpg"
    assert files.images(folder, "a") == 5
    assert files.images(tmp_path / "b", "b") == 1  # reading it says that it is not there


def test_a_time_is_its_nearest_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 50)  # 25 a second
    late = write_video(tmp_path / "b.mp4", 20, times=[0, *range(500, 500 + 19 * 100, 100)])
    with open_video(path) as video:
        assert [frame_at(video, path, s, None) for s in (0.0, 1.0, 1.03, 2.0)] == [0, 25, 26, 49]
        assert frame_at(video, path, 1.0, 10.0) == 10
        with pytest.raises(DecodeError, match=r"ends at 2\.00 s, before its key frame at 2\.5 s"):
            frame_at(video, path, 2.5, None)
        with pytest.raises(DecodeError, match="is frame 60 at 30 a second, of 50"):
            frame_at(video, path, 2.0, 30.0)
        with pytest.raises(DecodeError, match="its key frame at -1 s"):
            frame_at(video, path, -1.0, 30.0)
    with open_video(late) as video:  # its rate changes: times count, not an average
        assert [frame_at(video, late, s, None) for s in (0.2, 0.5, 1.0, 1.04)] == [0, 1, 6, 6]


def test_clips_lie_around_their_key_frame(tmp_path: Path) -> None:
    """Of a trimmed video whose list counts from another beginning."""
    write_video(tmp_path / "v_000100_000102.mp4", 50)
    write(tmp_path, a__csv="v,101.0,0.25,0.25,0.75,0.75,1\n")
    source = BoxSource(tmp_path / "a.csv", tmp_path, trimmed=True)
    clips = _clips(read_key_frames(source, 1, 0.8))
    request = clips.request(clips.every()[0])
    result = read(request, clips.reading)
    assert result.ids == (18, 22, 26, 30)  # around frame 25
    assert [read_number(frame) for frame in result.data[0]] == [18, 22, 26, 30]
    assert result.plans[0].frame == (84, 112)
    assert "1 key frames with 1 boxes" in clips.describe()


def test_two_lists_mix_as_they_are_long(tmp_path: Path) -> None:
    """AVA and Kinetics are one set; weights say otherwise."""
    for name in "ab":
        write_video(tmp_path / f"{name}.mp4", 4)
    write(tmp_path, a__csv="a,0,0,0,1,1,1\n", b__csv="b,0,0,0,1,1,1\nb,0.04,0,0,1,1,1\n")
    lists = [read_key_frames(BoxSource(tmp_path / f"{n}.csv", tmp_path), 1, 0.8) for n in "ab"]
    clips = _clips(*lists)
    assert len(clips) == 3
    assert sorted(draw.source for draw in clips.order.draws(0, 3, 0, 3)) == [0, 1, 1]
    heavy = [
        read_key_frames(BoxSource(tmp_path / "a.csv", tmp_path, weight=1.0), 1, 0.8), lists[1],
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"b\.csv has no weight but other lists have"):
        _clips(*heavy)


def _clips(*lists: KeyFrameList) -> KeyFrameClips:
    views = DetectionViews(84, 80)
    reading = key_frame_reading(frames=4, views=views, training=False)
    return KeyFrameClips(lists, reading, stride=4)


def test_training_draws_depend_on_the_draw_alone(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 30)
    write(tmp_path, a__csv="a,0.5,0.1,0.1,0.9,0.9,1\n")
    found = read_key_frames(BoxSource(tmp_path / "a.csv", tmp_path), 1, 0.8)
    views = DetectionViews(84, 64, longest=96)
    reading = key_frame_reading(frames=2, samples=2, views=views, training=True)
    clips = KeyFrameClips([found], reading, stride=2, seed=3)
    sizes = set()
    for epoch in range(8):
        request = clips.request(Draw(0, epoch, 0, 0, 0))
        one, two = read(request, reading), read(request, reading)
        assert one.plans == two.plans
        assert one.plans[0] != one.plans[1]
        assert one.data.shape == (2, 2, 64, 64, 3)
        np.testing.assert_array_equal(one.data, two.data)
        sizes |= {plan.view.size[0] for plan in one.plans}
    assert min(sizes) >= 84
    assert max(sizes) <= 96
    assert len(sizes) > 3
