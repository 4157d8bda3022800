from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.videos import numbered_frame, read_numbers, write_audio, write_video
from videomae_fast.data import (
    ClipDataset,
    Draw,
    FailureReport,
    Source,
    possible_starts,
    read_report,
)
from videomae_fast.data.dataset import ClipSample
from videomae_fast.data.views.multi_scale import MultiScale
from videomae_fast.errors import UsageError
from videomae_fast.recipes import PretrainConfig, changed
from videomae_fast.tasks import pretraining


def draw(entry: int, *, position: int = 0, epoch: int = 0, source: int = 0) -> Draw:
    return Draw(step=5, epoch=epoch, position=position, source=source, entry=entry)


def dataset_of(
    paths: list[Path], folder: Path, *, samples: int = 2, seed: int = 0, stride: int = 4
) -> ClipDataset:
    path = folder / "list.csv"
    path.write_text("".join(f"{file} 0 -1\n" for file in paths))
    return ClipDataset(
        [Source(path)], image_size=32, samples=samples, seed=seed, frames=4, stride=stride
    )


def same(first: ClipSample, second: ClipSample) -> bool:
    return torch.equal(first.frames, second.frames) and torch.equal(
        first.mask_seeds, second.mask_seeds
    )


def test_an_item_depends_on_seed_epoch_and_position_alone(clips: Path, tmp_path: Path) -> None:
    dataset = dataset_of([clips / "clip5.mp4"], tmp_path)
    item = dataset[draw(0, position=3, epoch=1)]
    assert item.ok
    assert item.frames.dtype == torch.uint8
    assert item.frames.shape == (2, 4, 32, 32, 3)
    assert same(item, dataset[Draw(step=99, epoch=1, position=3, source=0, entry=0)])
    others = [
        dataset[draw(0, position=4, epoch=1)],
        dataset[draw(0, position=3, epoch=2)],
        dataset_of([clips / "clip5.mp4"], tmp_path, seed=1)[draw(0, position=3, epoch=1)],
    ]
    assert not any(same(item, other) for other in others)


def test_mask_seeds_are_all_different(clips: Path, tmp_path: Path) -> None:
    dataset = dataset_of([clips / "clip0.mp4"], tmp_path, samples=4)
    seeds = torch.cat([dataset[draw(0, position=p)].mask_seeds for p in range(10)])
    assert seeds.dtype == torch.int64
    assert seeds.min() >= 0
    assert len(set(seeds.tolist())) == 40


def test_one_decode_and_one_crop_for_all_frames(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes: list[object] = []
    reads: list[list[int]] = []
    from videomae_fast.data.decoders.pyav import PyAVReader
    from videomae_fast.data.views import multi_scale as module

    crop, read = module.crop_views, PyAVReader.read

    def crop_views(frames: np.ndarray, of: list[object], *rest: object) -> np.ndarray:
        boxes.extend(of)
        assert len(frames) == 4
        return crop(frames, of, *rest)  # type: ignore[arg-type]

    def read_once(self: PyAVReader, ids: list[int]) -> np.ndarray:
        reads.append(ids)
        return read(self, ids)

    monkeypatch.setattr(module, "crop_views", crop_views)
    monkeypatch.setattr(PyAVReader, "read", read_once)
    dataset_of([clips / "clip5.mp4"], tmp_path, samples=8)[draw(0)]
    assert len(reads) == 1
    assert len(boxes) == 8
    assert len(set(boxes)) > 4


def test_starts_are_those_of_the_official_rule(clips: Path, tmp_path: Path) -> None:
    """Video of 20 frames, 4 frames at stride 4: starts 0 to 4, each about equally often."""
    dataset = dataset_of([clips / "clip0.mp4"], tmp_path, samples=1)
    starts = []
    for position in range(100):
        name = dataset[draw(0, position=position)].name
        first, last = map(int, name.rsplit(" ", 1)[1].split(".."))
        assert last == first + 12
        starts.append(first)
    counts = np.bincount(starts)
    assert len(counts) == possible_starts(20, 4, 4) == 5
    assert counts.min() >= 8


def test_short_videos_are_padded(tmp_path: Path) -> None:
    write_video(tmp_path / "one.mp4", 1)
    write_video(tmp_path / "six.mp4", 6)
    dataset = dataset_of([tmp_path / "one.mp4", tmp_path / "six.mp4"], tmp_path)
    one, six = dataset[draw(0)], dataset[draw(1)]
    assert one.ok
    assert six.ok
    assert (one.frames == one.frames[:, :1]).all()
    assert six.name.endswith("frames 0..4")


def test_a_source_has_its_own_stride_root_and_pattern(clips: Path, tmp_path: Path) -> None:
    from PIL import Image

    frames = tmp_path / "AVA2.2" / "f"
    frames.mkdir(parents=True)
    for number in range(30):
        Image.fromarray(numbered_frame(number)).save(frames / f"image_{900 + number:06}.jpg")
    (tmp_path / "a.csv").write_text("clip5.mp4 0 -1\n")
    (tmp_path / "b.csv").write_text("AVA2.2/f 900 30\n")
    dataset = ClipDataset(
        [
            Source(tmp_path / "a.csv", clips, stride=1),
            Source(tmp_path / "b.csv", tmp_path, name_pattern="image_{:06}.jpg"),
        ],
        frames=3,
        stride=6,
        image_size=(84, 112),
        samples=1,
    )
    assert "a.csv: 1 entries, 50.0% of 2 draws per epoch, stride 1" in dataset.describe(1)
    for source, stride in ((0, 1), (1, 6)):
        item = dataset[draw(0, source=source)]
        assert item.ok, item.failure
        first, last = map(int, item.name.rsplit(" ", 1)[1].split(".."))
        assert last - first == 2 * stride
    whole = [dataset[draw(0, source=1, position=p)] for p in range(40)]
    numbers = [read_numbers(item.frames[0].numpy()) for item in whole]
    assert any(b - a == c - b == 6 for a, b, c in numbers)  # draws whose crop is the whole frame


@pytest.fixture
def bad_files(clips: Path, tmp_path: Path) -> list[Path]:
    """A good file, then one of each kind of bad ones."""
    good = (clips / "clip3.mp4").read_bytes()
    files = {
        "good.mp4": good,
        "empty.mp4": b"",
        "text.mp4": b"hello\n" * 99,
        "headless.mp4": good[: len(good) // 2],
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    write_video(tmp_path / "fast.mp4", container={"movflags": "faststart"})
    cut = (tmp_path / "fast.mp4").read_bytes()
    (tmp_path / "truncated.mp4").write_bytes(cut[: len(cut) * 2 // 3])
    write_audio(tmp_path / "audio.mp4")
    (tmp_path / "folder.mp4").mkdir()
    names = [*files, "truncated.mp4", "audio.mp4", "folder.mp4", "gone.mp4"]
    return [tmp_path / name for name in names]


def test_bad_files_give_failures_of_the_same_shapes(bad_files: list[Path], tmp_path: Path) -> None:
    dataset = dataset_of(bad_files, tmp_path)
    reasons = {}
    for index, path in enumerate(bad_files):
        item = dataset[draw(index, position=index)]
        assert item.frames.shape == (2, 4, 32, 32, 3)
        assert len(set(item.mask_seeds.tolist())) == 2
        assert same(item, dataset[draw(index, position=index)])
        if item.failure is None:
            assert item.frames.any()
            continue
        assert not item.frames.any()
        assert not item.ok
        assert item.failure.path == str(path)
        assert item.failure.list_path == str(tmp_path / "list.csv")
        assert item.failure.line == index + 1
        assert (item.failure.step, item.failure.epoch, item.failure.position) == (5, 0, index)
        assert str(item.failure) == f"{path} ({tmp_path}/list.csv:{index + 1}): " + (
            item.failure.reason
        )
        reasons[path.stem] = item.failure.reason
    assert set(reasons) == {path.stem for path in bad_files} - {"good"}
    assert reasons["empty"] == "0 bytes"
    assert reasons["gone"] == "no such file"
    assert reasons["audio"] == "no video stream"
    assert reasons["truncated"].startswith("truncated: ")
    assert "cut off" in reasons["headless"]
    assert "Invalid data" in reasons["text"]
    assert "folder" in reasons["folder"]


def test_a_file_that_vanishes(clips: Path, tmp_path: Path) -> None:
    path = tmp_path / "here.mp4"
    shutil.copy(clips / "clip1.mp4", path)
    dataset = dataset_of([path], tmp_path)
    assert dataset[draw(0)].ok
    path.unlink()
    failure = dataset[draw(0)].failure
    assert failure is not None
    assert failure.reason == "no such file"


class Speechless(Exception):
    def __str__(self) -> str:
        raise AttributeError("no words")


ODD = [
    (MemoryError(), "MemoryError"),
    (OSError(5, "Input/output error"), "OSError: [Errno 5] Input/output error"),
    (KeyError("comment"), "KeyError: 'comment'"),
    (ValueError("a\n  b"), "ValueError: a b"),
    (ValueError("x" * 9999), "ValueError: " + "x" * 297 + "..."),
    (ValueError("\ud800"), "ValueError: \\ud800"),
    (b"\xff".decode, "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 0"),
    (RecursionError("too deep"), "RecursionError: too deep"),
    (LookupError("no decoder"), "LookupError: no decoder"),
    (Speechless(), "Speechless: says nothing (AttributeError)"),
]


@pytest.mark.parametrize(("error", "reason"), ODD)
def test_any_error_of_a_file_is_a_failed_draw(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Any, reason: str
) -> None:
    """Else one file ends the run for good: going on, it draws the same file."""

    def broken(*_: object) -> None:
        if callable(error):
            error()
        raise error

    dataset = dataset_of([clips / "clip0.mp4"], tmp_path)
    monkeypatch.setattr("videomae_fast.data.decoders.pyav._Converter.__call__", broken)
    item = dataset[draw(0)]
    assert not item.frames.any()
    assert item.failure is not None
    assert item.failure.reason.startswith(reason)
    assert "in broken" in item.failure.trace
    with FailureReport(tmp_path) as report:
        report.add([item.failure], draws=1)
        assert read_report(report.path) == [item.failure]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_is_no_failure(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def ended(*_: object) -> None:
        raise error

    dataset = dataset_of([clips / "clip0.mp4"], tmp_path)
    monkeypatch.setattr("videomae_fast.data.decoders.pyav._Converter.__call__", ended)
    with pytest.raises(error):
        dataset[draw(0)]


def test_what_is_no_file_is_not_waited_for(clips: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    lines = [f"{tmp_path}/pipe.mp4 0 -1", "/dev/zero 0 -1", "/ 0 -1", "a\0b.mp4 0 -1"]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    dataset = ClipDataset([Source(tmp_path / "list.csv")], frames=2, image_size=16, samples=1)
    reasons: list[str] = []

    def read_all() -> None:
        for entry in range(4):
            failure = dataset[draw(entry)].failure
            reasons.append("" if failure is None else failure.reason)

    thread = threading.Thread(target=read_all, daemon=True)
    thread.start()
    thread.join(timeout=60)
    told = ("a pipe", "a device", "is a folder", "null byte")
    assert all(words in reason for words, reason in zip(told, reasons, strict=True)), reasons


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"frames": 0}, "frames"),
        ({"image_size": (224, 224, 3)}, "image_size"),
        ({"image_size": 0}, "image_size"),
        ({"decoder": "mpeg"}, "pyav, decord, torchcodec"),
        ({"epoch_size": 0}, "epoch_size"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_settings(clip_list: Path, options: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ClipDataset([Source(clip_list)], **options)  # type: ignore[arg-type]


def test_scales_of_a_configuration_are_those_of_its_crops(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.mp4 0 -1\n")
    lists = (Source(tmp_path / "list.txt"),)
    config = changed(PretrainConfig(), {"data.lists": lists, "data.scales": (0.7, 0.9)})
    assert pretraining.dataset_of(config).rule == MultiScale((0.7, 0.9))
    with pytest.raises(UsageError, match=r"data\.scales: none of the scales"):
        pretraining.dataset_of(changed(config, {"data.scales": (0.9, 0.7)}))
