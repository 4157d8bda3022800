"""Clips with boxes are the same wherever they are made: by loader processes, or on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.boxed import FPS, boxed_source, write_boxed
from tests.support.devices import NEEDS_GPU
from tests.support.videos import write_video
from videomae_fast.data.boxes import batches
from videomae_fast.data.boxes.batches import BoxBatch, WholeClip, training_batches, whole_batches
from videomae_fast.data.boxes.box_plan import BoxDraws
from videomae_fast.data.boxes.clips import KeyFrameClips, key_frame_reading
from videomae_fast.data.boxes.detection_views import (
    DetectionViews,
    viewed_boxes,
    viewed_clips,
    viewed_frames,
    whole_view,
)
from videomae_fast.data.boxes.entries import read_key_frames
from videomae_fast.data.boxes.geometry import moved
from videomae_fast.data.device.base import EncodedClip
from videomae_fast.data.errors import DecodeError
from videomae_fast.data.loader.pipeline import StepDraws
from videomae_fast.data.loader.stats import PipelineStats
from videomae_fast.data.randomness import Randomness
from videomae_fast.data.reading import read
from videomae_fast.errors import BackendUnavailableError
from videomae_fast.recipes import BoxSource

HAS_DALI = find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None
CPU = torch.device("cpu")
MOVED = BoxDraws(100, (0.2, 0.1), (0.1, 0.05))
SAMPLES, STEPS = 2, 3


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight key frames, and one whose video is missing."""
    folder = tmp_path_factory.mktemp("boxed")
    write_boxed(folder, 8, 1)
    with (folder / "train.csv").open("a") as file:
        file.write("gone,1,0.1,0.1,0.5,0.5,2\n")
    return folder


def clips_of(source: BoxSource, *, rule: Any = "repaired", training: bool = True) -> KeyFrameClips:
    views = DetectionViews(72, 40, boxes=rule, longest=90)
    reading = key_frame_reading(
        frames=4, samples=SAMPLES if training else 1, views=views, training=training
    )
    return KeyFrameClips([read_key_frames(source, 5, 0.8)], reading, stride=4, seed=3)


def batches_of(clips: KeyFrameClips, device: torch.device = CPU, **more: Any) -> list[BoxBatch]:
    given: dict[str, Any] = {
        "boxes": MOVED, "workers": 0, "time_limit": 60.0, "stats": PipelineStats(0), **more
    }  # fmt: skip
    draws = StepDraws(clips, 4, 1, range(STEPS), 0, 1)
    return list(training_batches(clips, draws, classes=5, device=device, **given))


def same(one: BoxBatch, other: BoxBatch) -> None:
    for name in ("frames", "ok", "boxes", "clip", "labels", "seeds"):
        assert torch.equal(getattr(one, name).cpu(), getattr(other, name).cpu()), name
    assert one.names == other.names
    assert list(map(str, one.failures)) == list(map(str, other.failures))


@pytest.mark.parametrize("rule", ["repaired", "official"])
@pytest.mark.parametrize("most", [100, 1])
def test_a_device_makes_the_same_clips_and_boxes(rule: str, most: int, boxed: Path) -> None:
    clips = clips_of(boxed_source(boxed, "train.csv"), rule=rule)
    how = replace(MOVED, most=most)
    plain = batches_of(clips, boxes=how)
    for options in ({"crop_on": "device"}, {"crop_on": "device", "workers": 1}, {"workers": 1}):
        for one, other in zip(plain, batches_of(clips, boxes=how, **options), strict=True):
            same(one, other)
    assert sum(len(one.failures) for one in plain) == 2  # drawn in both epochs
    assert sum(len(one.boxes) for one in plain) > 8
    assert sum(one.frames[~one.ok].sum() for one in plain) == 0


@pytest.mark.parametrize("crop_on", ["worker", "device"])
@pytest.mark.parametrize("rule", ["repaired", "official"])
def test_they_are_those_of_each_clip_by_itself(rule: str, crop_on: str, boxed: Path) -> None:
    """Draws, frames and boxes of a batch, from the words of each clip alone."""
    clips = clips_of(boxed_source(boxed, "train.csv"), rule=rule)
    draws = StepDraws(clips, 4, 1, range(STEPS), 0, 1)
    whole = replace(clips.reading, hand_over="frames")
    for part, batch in zip(draws, batches_of(clips, crop_on=crop_on), strict=True):
        for number, draw in enumerate(part):
            request, entry = clips.request(draw), clips.entry(draw)
            if entry.key[0] == "gone":
                continue
            result = read(request, whole)
            for sample, plan in enumerate(result.plans):
                row = number * SAMPLES + sample
                frames = viewed_frames(torch.from_numpy(result.data), plan.view)
                assert torch.equal(batch.frames[row], frames)
                rows, there = entry.in_frame(entry.boxes, plan.frame)
                rows, kept = viewed_boxes(rows, plan.frame, plan.view)
                rng = Randomness(*request.words[3 + 4 * sample :][:2])
                uniform = torch.tensor([rng.uniform() for _ in range(4 * len(rows))]).view(-1, 4)
                expected = moved(rows, uniform, plan.size, MOVED.outwards, MOVED.inwards)
                assert torch.equal(batch.boxes[batch.clip == row], expected)
                labels = torch.from_numpy(entry.labels)[there][kept]
                assert torch.equal(batch.labels[batch.clip == row], labels)


@pytest.mark.parametrize("where", [pytest.param("cuda", marks=NEEDS_GPU)])
def test_a_gpu_makes_the_same_clips_and_boxes(where: str, boxed: Path) -> None:
    clips = clips_of(boxed_source(boxed, "train.csv"))
    device = torch.device(where)
    for crop_on in ("worker", "device"):
        found = batches_of(clips, device, crop_on=crop_on, workers=1)
        for one, other in zip(batches_of(clips), found, strict=True):
            same(one, other)
            assert other.frames.device.type == other.boxes.device.type == where


def test_tests_are_resized_where_the_frames_are(boxed: Path) -> None:
    clips = clips_of(boxed_source(boxed, "train.csv"), training=False)
    found = [
        list(
            whole_batches(
                clips,
                clips.every(),
                batch=3,
                widened=(0.1, 0.05),
                detected=[False],
                workers=0,
                device=CPU,
                crop_on=crop_on,
            )
        )
        for crop_on in ("worker", "device")
    ]
    for one, other in zip(*found, strict=True):
        assert one.draws == other.draws
        for clip, again in zip(one.clips, other.clips, strict=True):
            if isinstance(clip, WholeClip) and isinstance(again, WholeClip):
                assert clip.frames.shape[1:3] == (72, 72)
                assert torch.equal(clip.frames, again.frames)
                assert torch.equal(clip.widened, again.widened)
            else:
                assert str(clip) == str(again)


def test_views_of_several_sizes_are_refused() -> None:
    frames = torch.zeros(1, 10, 12, 3, dtype=torch.uint8)
    views = [whole_view(DetectionViews(side, 8), (10, 12)) for side in (8, 9)]
    with pytest.raises(ValueError, match="clips must have one size"):
        viewed_clips([frames, frames], views)


def test_a_decoder_that_is_not_there_is_an_error(boxed: Path) -> None:
    clips = clips_of(boxed_source(boxed, "train.csv"))
    with pytest.raises(BackendUnavailableError, match="decodes on a GPU, not on cpu"):
        batches_of(clips, device_decoder="torchcodec-cuda")


def write_coded(folder: Path, codecs: Sequence[str]) -> BoxSource:
    """Videos, each with a key frame with a box in its middle."""
    lines = []
    for number, codec in enumerate(codecs):
        options = {"g": "12", "deadline": "realtime", "cpu-used": "8"} if "vp" in codec else {}
        write_video(
            folder / f"v{number}.mkv", 30, codec=codec, size=(96, 80), options=options,
            times=[frame * 1000 // FPS for frame in range(30)],
        )  # fmt: skip
        lines.append(f"v{number},1,0.2,0.2,0.8,0.8,{number % 5 + 1}\n")
    (folder / "list.csv").write_text("".join(lines))
    return BoxSource(folder / "list.csv", folder)


@pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_decoder_of_the_device(workers: int, tmp_path: Path) -> None:
    """Nearly the same frames, and the very same boxes; what it can't decode is counted."""
    source = write_coded(tmp_path, ["libvpx-vp9", "libx264", "libvpx", "libvpx-vp9"])
    clips = clips_of(source)
    stats = PipelineStats(workers)
    found = batches_of(clips, device_decoder="dali", stats=stats, workers=workers)
    for one, other in zip(batches_of(clips), found, strict=True):
        assert one.ok.all()
        assert other.ok.all()
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.labels, other.labels)
        apart = (one.frames.int() - other.frames.int()).abs().float()
        assert 0 < apart.mean() < 6
    assert stats.kept_back == {"codec h264": STEPS}
    assert "3 for codec h264" in (stats.how_read() or "")


def test_frames_of_another_size_than_told_are_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boxes would be elsewhere: the key frame is left out by name, the others stay."""
    source = write_coded(tmp_path, ["libvpx", "libvpx", "libvpx", "libvpx"])
    clips = clips_of(source)

    class Decoder:
        def decode(self, given: Sequence[EncodedClip]) -> list[Tensor | DecodeError]:
            sizes = iter([80, 80, 64, 80])
            return [torch.full((4, next(sizes), 96, 3), 7, dtype=torch.uint8) for _ in given]

        def close(self) -> None:
            closed.append(True)

    def handed_over(settings: Any, *_: object) -> Any:
        return replace(settings, hand_over="encoded", codecs=frozenset({"vp8"})), Decoder()

    closed: list[bool] = []
    monkeypatch.setattr(batches, "handed_over", handed_over)
    for batch in batches_of(clips):
        assert batch.ok.tolist() == [True] * 4 + [False] * 2 + [True] * 2
        (failure,) = batch.failures
        assert "frames of 96x64, not as told" in str(failure)
        assert not batch.frames[4:6].any()
        assert batch.frames[:4].any()
        assert not set(batch.clip.tolist()) & {4, 5}
    assert closed == [True]


def test_a_file_per_second_is_decoded_by_loader_processes(tmp_path: Path) -> None:
    """Its clip lies in several files, so a device that decodes one does not get it."""
    (tmp_path / "v0").mkdir()
    for second in range(3):
        write_video(tmp_path / "v0" / f"{second}.mkv", 10, codec="libvpx", options={})
    (tmp_path / "list.csv").write_text("v0,1,0.2,0.2,0.8,0.8,1\n")
    clips = clips_of(BoxSource(tmp_path / "list.csv", tmp_path, per_second=True))
    settings = replace(clips.reading, hand_over="encoded", codecs=frozenset({"vp8"}))
    result = read(clips.request(clips.every()[0]), settings)
    assert result.kind == "frames"
    assert result.kept_back == "a clip of several files"
    plain = read(clips.request(clips.every()[0]), clips.reading)
    view = result.plans[0].view
    made = viewed_frames(torch.from_numpy(np.array(result.data)), view)
    assert torch.equal(made, torch.from_numpy(plain.data[0]))
