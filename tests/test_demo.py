"""The demo: its videos are real files, moving, textured, varied; its steps, and its verdict."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest

from videomae_fast.cli import main
from videomae_fast.data import load_list, open_video
from videomae_fast.demo import run
from videomae_fast.demo.scenes import SCENES, frames
from videomae_fast.demo.videos import DemoError, find_videos, render_videos, write_list
from videomae_fast.pictures.loss_curves import LossCurve
from videomae_fast.training import load_model
from videomae_fast.training.metrics import read_metrics


def video(index: int, seed: int = 0, count: int = 12) -> np.ndarray:
    return np.stack(list(frames(seed, index, size=48, count=count, fps=4)))


@pytest.mark.parametrize("index", range(len(SCENES)), ids=lambda i: SCENES[i].__name__)
def test_every_scene_moves_and_has_structure(index: int) -> None:
    clip = video(index).astype(float)
    assert clip.shape == (12, 48, 48, 3)
    moved = np.abs(np.diff(clip, axis=0)).mean(axis=(1, 2, 3))
    assert moved.min() > 0.5
    assert np.abs(clip[-1] - clip[0]).mean() > 5
    assert clip.std(axis=(1, 2)).max() > 20
    assert clip.std(axis=(1, 2)).min(axis=0).max() > 8


def test_videos_are_a_function_of_seed_and_index_and_differ() -> None:
    first = video(3)
    assert (video(3) == first).all()
    for other in (video(3, seed=1), video(3 + len(SCENES))):
        assert np.abs(other.astype(float) - first).mean() > 5


def test_files_are_h264_and_hold_the_pictures(tmp_path: Path) -> None:
    paths = render_videos(tmp_path, 2, size=64, seconds=1.0, fps=12)
    for index, path in enumerate(paths):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert (stream.width, stream.height, stream.frames) == (64, 64, 12)
        with open_video(path) as reader:
            decoded = reader.read(list(range(12))).astype(float)
        drawn = np.stack(list(frames(0, index, size=64, count=12, fps=12))).astype(float)
        assert np.sqrt(((decoded - drawn) ** 2).mean()) < 12
    assert not list(tmp_path.glob("*.part"))


def test_files_that_exist_are_kept_and_unfinished_ones_are_not_taken_for_done(
    tmp_path: Path,
) -> None:
    (path,) = render_videos(tmp_path, 1, size=32, seconds=0.5)
    path.with_name(path.name + ".part").write_bytes(b"left by a kill")
    before = path.stat().st_mtime_ns
    assert render_videos(tmp_path, 1, size=32, seconds=0.5) == [path]
    assert path.stat().st_mtime_ns == before
    path.unlink()
    render_videos(tmp_path, 1, size=32, seconds=0.5)
    with open_video(path) as reader:
        assert reader.frame_count == 12


def test_videos_of_a_folder_are_found_in_folders_below(tmp_path: Path) -> None:
    for name in ("b.mp4", "a/c.MKV", "a/d.webm", "a/notes.txt", "a/e.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = [str(path.relative_to(tmp_path)) for path in find_videos(tmp_path)]
    assert found == ["a/c.MKV", "a/d.webm", "b.mp4"]


def test_folder_without_videos_and_no_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=r"no videos in it.*\.mkv"):
        find_videos(tmp_path)
    with pytest.raises(DemoError, match="no such folder"):
        find_videos(tmp_path / "nothing")


def test_list_is_the_official_format_also_with_spaces(tmp_path: Path) -> None:
    videos = [tmp_path / "my clips" / "one 1.mp4", tmp_path / "two.mp4"]
    write_list(tmp_path / "lists" / "train.txt", videos)
    entries = load_list(tmp_path / "lists" / "train.txt")
    assert [entries[i].path for i in range(len(entries))] == [str(v) for v in videos]
    assert all(entries[i].is_video for i in range(len(entries)))
    with pytest.raises(DemoError, match="one path per line"):
        write_list(tmp_path / "x.txt", [tmp_path / "a\nb.mp4"])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo of a few steps: everything but the learning."""
    monkeypatch.setattr(run, "TRAINED", 2)
    monkeypatch.setattr(run, "HELD_OUT", 1)
    monkeypatch.setattr(run, "SHOWN_TRAINED", (1,))
    monkeypatch.setattr(run, "SHOWN_HELD_OUT", (0,))
    monkeypatch.setattr(run, "STEPS_PER_EPOCH", 5)
    monkeypatch.setattr(run, "render_videos", partial(render_videos, size=48, seconds=1.0))


def test_demo_leaves_checkpoint_plot_and_pictures_and_says_where(
    small: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(run, "FALLEN", 2.0)
    words = ["demo", "--output", str(tmp_path), "--steps", "12"]  # no whole number of epochs
    assert main(words) == 0
    told = capsys.readouterr().out
    for name in ("loss.png", "run/checkpoints/step-00000012", "pictures/001_"):
        assert str(tmp_path / name) in told
    model, config = load_model(tmp_path / "run")
    assert config.grid.tokens > 0
    assert model.normalize_target
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 12
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 2
    assert len(list((tmp_path / "pictures").glob("*.gif"))) == 2
    assert "a video it was not trained on" in told
    trained = (tmp_path / "train.txt").read_text()
    assert len(trained.splitlines()) == 2
    assert "002_" not in trained
    assert len(list((tmp_path / "cache").glob("*.frames"))) == 2

    assert main(words) == 0
    assert "nothing left to do" in capsys.readouterr().out


def test_demo_whose_loss_has_not_fallen_fails(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten steps don't even get to where predicting nothing is."""
    assert main(["demo", "--output", str(tmp_path), "--steps", "10"]) == 1
    told = capsys.readouterr().err
    assert "the loss has not clearly fallen" in told
    assert str(tmp_path / "loss.png") in told
    assert (tmp_path / "loss.png").exists()


def test_demo_takes_videos_of_a_folder(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "FALLEN", 2.0)
    monkeypatch.setattr(run, "TRAINED", 4)
    own = tmp_path / "my videos"
    render_videos(own, 3, seed=5, size=48, seconds=1.0)
    output = tmp_path / "out"
    words = ["demo", "--output", str(output), "--steps", "10", "--videos", str(own)]
    assert main(words) == 0
    assert not (output / "videos").exists()
    assert not (output / "cache").exists()
    assert (output / "train.txt").read_text().count(str(own)) == 3
    assert "not trained on" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--minutes", "0"], 2, "--minutes must be more than 0"),
        (["--minutes", "0.0001"], 2, "--steps must be 1 or more, not 0"),
        (["--minutes", "0.02"], 1, "12 steps are too few: 20 are the least"),
        (["--steps", "0"], 2, "--steps must be 1 or more, not 0"),
        (["--steps", "19"], 1, "19 steps are too few: 20 are the least"),
        (["--seed", "-1"], 2, "--seed must be 0 or more"),
        (["--videos", "nowhere"], 1, "no such folder"),
    ],
)
def test_demo_refusals(
    words: list[str],
    code: int,
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["demo", "--output", str(tmp_path), *words]) == code
    assert told in capsys.readouterr().err


def test_the_former_spelling_of_the_length_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = []

    def run_demo(output: Path, *, steps: int, **_: object) -> None:
        given.append(steps)
        raise DemoError("enough")

    monkeypatch.setattr(run, "run_demo", run_demo)
    for words in (["--minutes", "0.5"], ["--steps", "300"], []):
        assert main(["demo", "--output", str(tmp_path), *words]) == 1
        told = capsys.readouterr().err
        assert ("warning: --minutes 0.5 is now --steps 300" in told) == ("--minutes" in words)
    assert given == [300, 300, 3000]


def test_first_and_last_loss_are_means_of_a_twentieth() -> None:
    curve = LossCurve(list(range(40)), [4.0, 2.0, *[1.0] * 36, 0.5, 0.7], [1e-3] * 40)
    assert run.ends(curve) == (3.0, pytest.approx(0.6))
