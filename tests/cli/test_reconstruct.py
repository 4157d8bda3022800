"""``reconstruct`` from a checkpoint and a video file to pictures, and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.support.real_clips import CLIPS, needs_clips
from videomae_fast.cli import main
from videomae_fast.demo.videos import render_videos, write_list

TINY = (
    "--image-size 32 --patch-size 16 --frames 4 --width 32 --depth 1 --heads 2 --decoder-width 32 "
    "--decoder-depth 1 --decoder-heads 2 --encoder-mask-ratio 0.75 --videos-per-step 2 "
    "--samples-per-video 1 --epochs 1 --warmup-epochs 0 --workers 0 --stride 1 --device cpu"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step; beside it, the videos it saw."""
    folder = tmp_path_factory.mktemp("run")
    write_list(folder / "train.csv", render_videos(folder / "videos", 2, size=48, seconds=0.5))
    words = f"pretrain --data {folder}/train.csv --output {folder}/run {TINY}"
    assert main(words.split()) == 0
    return folder


def video(run: Path) -> Path:
    return sorted((run / "videos").iterdir())[0]


def reconstruct(*words: object) -> int:
    try:
        return main(["reconstruct", *map(str, words)])
    except SystemExit as stop:  # of argparse
        return int(stop.code or 0)


def test_picture_animation_and_numbers_are_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (video(run), "--output", tmp_path / "new" / "folder", "--mask-ratio", 0.75)
    assert reconstruct(run / "run", *words, "--stride", 2, "--seed", 3) == 0
    stem = tmp_path / "new" / "folder" / video(run).stem
    assert str(stem.with_suffix(".png")) in capsys.readouterr().out
    with Image.open(stem.with_suffix(".png")) as picture:
        assert picture.width > 600
    with Image.open(stem.with_suffix(".gif")) as animation:
        assert animation.n_frames == 4
    told = json.loads(stem.with_suffix(".json").read_text())
    assert told["hidden_share"] == 0.75
    assert told["stride"] == 2
    assert told["seed"] == 3
    assert told["loss"] > 0


def test_options_change_the_picture(run: Path, tmp_path: Path) -> None:
    def made(name: str, *options: object) -> bytes:
        words = ("--output", tmp_path / name, "--mask-ratio", 0.5, "--stride", 1, *options)
        assert reconstruct(run / "run", video(run), *words) == 0
        return (tmp_path / name / f"{video(run).stem}.png").read_bytes()

    plain = made("plain")
    assert made("again") == plain
    for name, option in (
        ("mask", ("--encoder-mask", "frame")),
        ("start", ("--start", 0)),
        ("seed", ("--seed", 1)),
    ):
        assert made(name, *option) != plain


def test_checkpoint_folder_and_file_are_taken_as_well(run: Path, tmp_path: Path) -> None:
    (folder,) = (run / "run" / "checkpoints").iterdir()
    for checkpoint in (folder, folder / "model.safetensors"):
        words = ("--output", tmp_path, "--mask-ratio", 0.75, "--stride", 1)
        assert reconstruct(checkpoint, video(run), *words) == 0


@needs_clips
def test_real_clips_of_all_codecs(run: Path, tmp_path: Path) -> None:
    clips = CLIPS
    for clip in clips:
        words = ("--output", tmp_path, "--mask-ratio", 0.75)
        assert reconstruct(run / "run", clip, *words) == 0
    assert len(list(tmp_path.glob("*.gif"))) == len(clips) > 0


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        ({"checkpoint": "nowhere"}, 2, "no such checkpoint; give the output folder of a run"),
        ({"video": "nothing.mp4"}, 2, "nothing.mp4: no such video file"),
        ({"--stride": "0"}, 2, "--stride: must be at least 1, not 0"),
        ({"--start": "-1"}, 2, "--start must be 0 or more, not -1"),
        ({"--start": "99999"}, 1, "99999"),
        ({"--mask-ratio": "1.5"}, 2, "--mask-ratio: must be below 1, not 1.5"),
        ({"--mask-ratio": "0.01"}, 2, "choose a ratio that leaves some masked"),
        ({"--decoder": "vhs"}, 1, "decoder 'vhs' is not one of pyav, decord, torchcodec"),
    ],
)
def test_refusals_say_what_to_do(
    change: dict[str, str],
    code: int,
    told: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = {"--mask-ratio": "0.75", "--stride": "1", "--output": str(tmp_path), **change}
    checkpoint = options.pop("checkpoint", str(run / "run"))
    clip = options.pop("video", str(video(run)))
    words = [word for pair in options.items() for word in pair]
    assert reconstruct(checkpoint, clip, *words) == code
    shown = capsys.readouterr().err
    assert told in shown
    assert shown.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_file_that_is_no_video_and_one_that_is_no_checkpoint(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = tmp_path / "fake.mp4"
    fake.write_bytes(b"not a video" * 100)
    assert reconstruct(run / "run", fake, "--output", tmp_path) == 1
    assert str(fake) in capsys.readouterr().err
    pickled = tmp_path / "weights.pth"
    torch.save({"model": {}}, pickled)
    assert reconstruct(pickled, video(run), "--output", tmp_path) == 1
    assert "not a .safetensors file" in capsys.readouterr().err
