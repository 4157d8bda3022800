"""``features`` from weights and videos to files that temporal detectors read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.random_weights import TINY, TOLD, classifier, pretraining
from tests.support.videos import write_video
from videomae_fast import MAEConfig, VideoClassifier
from videomae_fast.cli import main
from videomae_fast.data.decoders import open_video
from videomae_fast.data.lock import FolderLock
from videomae_fast.evaluation.features import preset, video_features
from videomae_fast.interop import read_encoder
from videomae_fast.models.frozen import FrozenFeatures

HINTS = ("--heads", 2, "--frames", 4, "--image-size", 32)
NARROW = ("--decoder-heads", 1)
SMALL = ("--stride", 4, "--device", "cpu", *HINTS)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of both kinds and three videos, two of one name; one of the latter is too short."""
    folder = tmp_path_factory.mktemp("features")
    torch.save({"module": classifier()}, folder / "classifier.pth")
    torch.save({"model": pretraining()}, folder / "pretrained.pth")
    for name, frames in (("one/a.mp4", 21), ("two/a.mp4", 3), ("b.mp4", 12)):
        (folder / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(folder / "videos" / name, frames)
    return folder


def features(*words: object) -> int:
    try:
        return main(["features", *map(str, words)])
    except SystemExit as stop:  # of argparse
        return int(stop.code or 0)


def told(array: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(array.with_suffix(".json").read_text())
    return found


def test_a_folder_of_videos(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert features(place / "classifier.pth", place / "videos", out, *SMALL) == 0
    shown = capsys.readouterr()
    assert "3 videos with 9 windows" in shown.out
    assert "too short   1 videos" in shown.out
    assert "norm        fc_norm" in shown.out
    assert "windows/s" in shown.err
    assert "ETA" in shown.err
    assert sorted(path.name for path in out.iterdir()) == [
        "a.json", "a.npy", "a~2.json", "a~2.npy", "b.json", "b.npy",
    ]  # fmt: skip
    about = told(out / "a.npy")
    assert about["made_from"]["video"]["path"] == str(place / "videos" / "one" / "a.mp4")
    assert about["frames"] == 21
    assert about["fps"] == pytest.approx(25)
    assert about["shape"] == [5, 32] == list(np.load(out / "a.npy").shape)
    assert about["norm"] == "fc_norm"
    assert about["stride"] == about["window"] == 4
    assert len(about["made_from"]["weights"]["sha256"]) == 64
    assert {"videomae_fast", "torch", "numpy"} <= about["versions"].keys()
    assert [told(out / name)["padded"] for name in ("a.npy", "a~2.npy", "b.npy")] == [
        False, True, False,
    ]  # fmt: skip


def read_as_actionformer(folder: Path, video: str) -> torch.Tensor:
    """[C, T], by libs/datasets/thumos14.py of actionformer_release: no prefix, file_ext .npy."""
    feats = np.load(folder / (video + ".npy")).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(feats.transpose()))


def in_actionformer(seconds: Any, fps: float, stride: int, num_frames: int = 16) -> Any:
    """Where a moment lies among features, by the same file."""
    return seconds * fps / stride - 0.5 * num_frames / stride


def read_as_opentad(folder: Path, video: str) -> torch.Tensor:
    """[T, C], by LoadFeats (npy) and ConvertToTensor."""
    return torch.from_numpy(np.load(folder / f"{video}.npy").astype(np.float32))


def in_opentad(
    seconds: Any, frames: int, duration: float, stride: int, offset_frames: int = 8
) -> Any:
    """Where a moment lies among features, by ThumosPaddingDataset; frames and duration are of the
    annotation."""
    return (np.floor(seconds / duration * frames + 1e-9) - offset_frames) / stride


@pytest.mark.parametrize(
    ("preset_name", "stride", "windows"), [("thumos14", 4, 7), ("fineaction", 16, 2)]
)
def test_the_preset_is_read_as_detectors_read_theirs(
    preset_name: str, stride: int, windows: int, place: Path, tmp_path: Path
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VideoClassifier(MAEConfig(width=32, depth=1, heads=2), 5).eval()
    torch.save({"module": model.state_dict()}, tmp_path / "weights.pth")
    video = write_video(tmp_path / "video_test_0000004.mp4", 41)
    out = tmp_path / "out"
    words = ("--preset", preset_name, "--heads", 2, "--device", "cpu")
    assert features(tmp_path / "weights.pth", video, out, *words) == 0
    about = told(out / "video_test_0000004.npy")
    assert (about["preset"], about["frames"]) == (preset_name, 41)
    one = read_as_actionformer(out, video.stem)
    other = read_as_opentad(out, video.stem)
    assert one.dtype == other.dtype == torch.float32
    assert one.shape == (32, windows)
    assert torch.equal(one.T, other)
    assert np.load(out / "video_test_0000004.npy").dtype == np.float32
    centres, duration = np.array(about["centres"]), 41 / about["fps"]
    there = np.arange(windows)
    np.testing.assert_allclose(in_actionformer(centres, about["fps"], stride), there)
    np.testing.assert_allclose(in_opentad(centres, 41, duration, stride), there)
    # What OpenTAD makes of FineAction's
    resized = torch.nn.functional.interpolate(one[None], 192, mode="linear", align_corners=True)
    torch.testing.assert_close(resized[0, :, [0, -1]], one[:, [0, -1]])
    with open_video(video) as opened:
        expected = video_features(FrozenFeatures(model), opened, preset(preset_name))
    np.testing.assert_allclose(other.numpy(), expected, atol=1e-6)


def test_what_is_whole_is_kept_and_a_half_one_made_again(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def go(*more: object) -> str:
        assert (
            features(place / "pretrained.pth", place / "videos", tmp_path, *SMALL, *NARROW, *more)
            == 0
        )
        return capsys.readouterr().out

    assert "encoder.norm" in go()
    whole = {path.name: path.read_bytes() for path in tmp_path.glob("*.npy")}
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    (tmp_path / "a.npy").write_bytes(whole["a.npy"][:-8])
    (tmp_path / "b.npy").unlink()  # killed between its JSON and itself
    shown = go()
    assert "2 videos with 8 windows" in shown
    assert "were there  1 videos" in shown
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.npy")} == whole
    assert (tmp_path / "a~2.npy").stat().st_mtime_ns == times["a~2.npy"]
    assert "were there  3 videos" in go()


def test_what_a_killed_process_left_is_removed(place: Path, tmp_path: Path) -> None:
    left = tmp_path / ".b.npy.4711.partial"
    left.write_bytes(b"half")
    words = (place / "classifier.pth", place / "videos" / "b.mp4", tmp_path, *SMALL)
    assert features(*words) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.json", "b.npy"]


def test_a_shard_is_made_by_one_process(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (place / "classifier.pth", place / "videos", tmp_path, *SMALL, "--shard")
    with FolderLock(tmp_path / ".working.1-of-2", "takes features"):
        assert features(*words, "1/2") == 2
        assert "another process takes features here" in capsys.readouterr().err
        assert features(*words, "2/2") == 0
    assert features(*words, "1/2") == 0


@pytest.mark.parametrize("change", [("--layer", 1), ("--stride", 2), ("--no-final-norm",)])
def test_features_of_something_else_are_not_replaced_unasked(
    change: tuple[object, ...], place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = place / "videos" / "b.mp4"
    words = (place / "classifier.pth", video, tmp_path, "--pooling", "clip", "--device", "cpu")
    assert features(*words, *HINTS) == 0
    before = (tmp_path / "b.npy").read_bytes()
    assert features(*words, *HINTS, *change) == 2
    assert "give another folder, or --overwrite" in capsys.readouterr().err
    assert (tmp_path / "b.npy").read_bytes() == before
    assert features(*words, *HINTS, *change, "--overwrite") == 0
    assert (tmp_path / "b.npy").read_bytes() != before


def test_a_foreign_array_is_not_replaced_unasked(place: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", np.zeros(3))
    words = (place / "classifier.pth", place / "videos" / "b.mp4", tmp_path, *SMALL)
    assert features(*words) == 2
    assert np.load(tmp_path / "b.npy").shape == (3,)


def test_shards_make_every_video_once_with_the_same_names(place: Path, tmp_path: Path) -> None:
    words = (place / "classifier.pth", place / "videos")
    assert features(*words, tmp_path / "whole", *SMALL) == 0
    seen = []
    for part in ("1/2", "2/2"):
        assert features(*words, tmp_path / "parts", *SMALL, "--shard", part) == 0
        seen.append(len(list((tmp_path / "parts").glob("*.npy"))))
    assert seen == [2, 3]
    for path in (tmp_path / "whole").glob("*.npy"):
        assert (tmp_path / "parts" / path.name).read_bytes() == path.read_bytes()


def test_failures_are_named_and_the_others_made(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 100)
    lines = [broken, tmp_path / "gone.mp4", *sorted((place / "videos").rglob("*.mp4"))]
    (tmp_path / "list.csv").write_text("".join(f"{path} 0 -1\n" for path in lines))
    out = tmp_path / "out"
    words = (place / "classifier.pth", tmp_path / "list.csv", out, *SMALL, "--short", "report")
    assert features(*words) == 0
    assert f"failed      3 videos, see {out / 'failures.jsonl'}" in capsys.readouterr().out
    report = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    reasons = {Path(each["path"]).name: each["reason"] for each in report}
    assert reasons.keys() == {"broken.mp4", "gone.mp4", "a.mp4"}
    assert reasons["gone.mp4"] == "no such file"
    assert reasons["a.mp4"] == "has 3 frames, and a window spans 4"
    assert [each["line"] for each in report][:2] == [1, 2]
    assert len(list(out.glob("*.npy"))) == 2
    assert not list(out.glob(".*"))
    assert features(place / "classifier.pth", broken, tmp_path / "none", *SMALL) == 1


def test_tokens_of_a_layer_from_pretrained_weights(place: Path, tmp_path: Path) -> None:
    video = place / "videos" / "b.mp4"
    words = ("--pooling", "tokens", "--layer", 1, "--size", 48, "--pixels", "none")
    assert features(place / "pretrained.pth", video, tmp_path, *SMALL, *NARROW, *words) == 0
    assert np.load(tmp_path / "b.npy").shape == (3, 2, 3, 3, 32)
    about = told(tmp_path / "b.npy")
    assert about["norm"] == "none"
    assert about["made_from"]["features"] == {
        "pooling": "tokens", "layer": 1, "layers": 2, "norm": "none",
    }  # fmt: skip
    assert about["made_from"]["pixels"]["std"] == [1, 1, 1]


def test_frame_folders_take_their_rate_from_the_option(place: Path, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "clip").mkdir()
    for number in range(1, 9):
        Image.new("RGB", (48, 40), (number, 9, 9)).save(tmp_path / "clip" / f"img_{number:05}.jpg")
    (tmp_path / "list.csv").write_text("clip 1 8\n")
    words = (place / "classifier.pth", tmp_path / "list.csv", tmp_path, "--root", tmp_path, *SMALL)
    assert features(*words) == 0
    assert told(tmp_path / "clip.npy")["centres"] is None
    assert features(*words, "--fps", 10, "--overwrite") == 0
    assert told(tmp_path / "clip.npy")["centres"] == [0.2, 0.6]


def test_an_encoder_is_read_without_its_decoder(place: Path, tmp_path: Path) -> None:
    state = {k: v for k, v in pretraining().items() if k.startswith("encoder.")}
    torch.save({"model": state}, tmp_path / "encoder.pth")
    clips = torch.randint(0, 256, (1, 4, 32, 32, 3), dtype=torch.uint8)
    whole = read_encoder(place / "pretrained.pth", TOLD)
    alone = read_encoder(tmp_path / "encoder.pth", replace(TOLD, decoder_heads=None))
    one, other = FrozenFeatures(whole)(clips), FrozenFeatures(alone)(clips)
    assert torch.equal(one, other)
    assert one.shape == (1, TINY["width"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--preset", "thumos14", "--stride", 2), "--preset thumos14 says --stride itself"),
        (("--stride", 0), "stride must be at least 1, not 0"),
        (("--length", 3), "frames 3 is not a positive multiple of tubelet_size 2"),
        (("--size", 40), "image height 40 is not a positive multiple of patch_size 16"),
        (("--layer", 9), "layer 9: the model has layers 1 to 2"),
        (("--pixels", "half"), "imagenet, none, or three means and three deviations"),
        (("--pixels", 0, 0, 0, 1, 1, 0), "3 deviations above 0"),
        (("--shard", "0/2"), "'0/2' is no part like 1/4"),
        (("--batch", 0), "--batch must be 1 or more"),
        (("--fps", 0), "--fps must be more than 0"),
        (("--root", "nowhere"), "--root nowhere: no such folder"),
    ],
)
def test_refusals(
    words: tuple[object, ...], message: str, place: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert features(place / "classifier.pth", place / "videos", tmp_path, *HINTS, *words) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
    assert not list(tmp_path.iterdir())
