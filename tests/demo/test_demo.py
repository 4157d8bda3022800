"""The demo: its videos are real files, moving, textured, varied; its steps, and its verdict."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from videomae_fast.cli import demo as cli_demo
from videomae_fast.cli import main
from videomae_fast.data import load_list, open_video
from videomae_fast.demo import run, settings
from videomae_fast.demo.material import own, rendered
from videomae_fast.demo.motions import MOTIONS
from videomae_fast.demo.reconstructing import without_prediction
from videomae_fast.demo.scenes import SCENES, frames
from videomae_fast.demo.videos import DemoError, find_videos, render_videos, write_list
from videomae_fast.pictures.loss_curves import LossCurve
from videomae_fast.pictures.reconstruction import reconstruct
from videomae_fast.tasks.pretraining import build_model
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


TINY = settings.Scale(
    unlabelled=4, labelled=1, held_out=1, steps=20, finetuning_steps=6, videos_per_step=4,
    labelled_per_step=4, image_size=32, width=32, depth=1,
)  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo of a few steps: everything but the learning."""
    monkeypatch.setattr(settings, "FULL", TINY)
    monkeypatch.setattr(settings, "STEPS_PER_EPOCH", 5)
    monkeypatch.setattr(run, "FALLEN", 2.0)


def test_demo_leaves_all_that_it_says_in_its_last_ten_lines(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["demo", "--output", str(tmp_path), "--steps", "22"]  # no whole number of epochs
    assert main(words) == 0
    last = capsys.readouterr().out.split("\n\n")[-1].rstrip("\n").splitlines()
    assert len(last) <= 10
    assert str(tmp_path) in last[0]
    named = {line.split()[0] for line in last if (tmp_path / line.split()[0]).is_file()}
    assert {name.rpartition("/")[2][-4:] for name in named} >= {".gif", ".png", "json"}
    assert named >= {"loss.png", "classes/accuracy.png", "classes/confusion-pre-trained.png"}
    for said in ("predicting nothing", "never trained on", "from scratch", "by chance 12.5%"):
        assert said in "\n".join(last)

    model, config = load_model(tmp_path / "run")
    assert config.grid.tokens > 0
    assert model.normalize_target
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 22
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 6
    assert len(list((tmp_path / "cache").glob("*.frames"))) == 20

    figures = json.loads((tmp_path / "demo.json").read_text())
    assert figures["reconstruction"]["held_out"]["videos"] == 8
    assert set(figures["classes"]) == {"pre-trained", "from scratch"}
    for one in figures["classes"].values():
        assert sum(map(sum, one["confusion"])) == one["videos"] == 8
        assert one["accuracy"] == one["by_epoch"][-1]

    assert main(words) == 0
    assert capsys.readouterr().out.count("nothing left to do") == 3


def test_held_out_videos_are_in_no_list_to_train_on(small: None, tmp_path: Path) -> None:
    material = rendered(tmp_path, TINY, lambda _: None)
    lists = {
        name: {line.split()[0] for line in path.read_text().splitlines()}
        for name, path in (
            ("all", material.pretraining),
            ("few", material.labels.training),
            ("held out", material.labels.held_out),
        )
    }
    assert {name: len(videos) for name, videos in lists.items()} == {
        "all": 12, "few": 8, "held out": 8,
    }  # fmt: skip
    assert lists["few"] < lists["all"]
    assert not lists["held out"] & lists["all"]
    for path in (material.labels.training, material.labels.held_out):
        for line in path.read_text().splitlines():
            video, label = line.split()
            assert f"_{MOTIONS[int(label)]}_" in video


def test_predicting_nothing_scores_the_variance_of_the_target() -> None:
    """Cubes of 128 values are divided by the deviation of a sample: 127 / 128 is left."""
    model = build_model(settings.pretraining_config(TINY, Path("none"), cache=None))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8, generator=generator)
    found = reconstruct(without_prediction(model), noise, settings.RECONSTRUCTED).loss
    assert found == pytest.approx(127 / 128, abs=1e-3)
    assert model.decoder.head.weight.abs().max() > 0  # the model itself is as it was


def test_demo_that_has_not_learnt_fails(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of twenty steps a fifth of what predicting nothing scores is too much to ask."""
    monkeypatch.setattr(run, "FALLEN", 0.2)
    assert main(["demo", "--output", str(tmp_path), "--steps", "20"]) == 1
    told = capsys.readouterr().err
    assert "has not clearly learnt" in told
    assert str(tmp_path / "loss.png") in told
    assert (tmp_path / "loss.png").exists()
    assert list((tmp_path / "pictures").glob("*.png"))  # they show it
    assert not (tmp_path / "classes").exists()


def test_demo_takes_videos_of_a_folder(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "my videos"
    render_videos(own, 16, seed=5, size=48, seconds=1.0)
    output = tmp_path / "out"
    words = ["demo", "--output", str(output), "--steps", "20", "--videos", str(own)]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "own videos have no labels" in told
    assert "1 videos that it was never trained on" in told
    for name in ("videos", "cache", "classes"):
        assert not (output / name).exists()
    assert (output / "train.txt").read_text().count(str(own)) == 15
    assert len(list((output / "pictures").glob("*.png"))) == 4


def test_of_few_own_videos_none_is_held_out(tmp_path: Path) -> None:
    render_videos(tmp_path / "own", 3, seed=5, size=48, seconds=0.5)
    material = own(tmp_path, tmp_path / "own", lambda _: None)
    assert len(material.trained) == 3
    assert material.held_out == []
    assert material.pretraining.read_text().count("/own/") == 3


def test_the_length_is_declared_once() -> None:
    assert settings.Scale().steps == cli_demo.STEPS
    assert settings.scale_of(cli_demo.STEPS, 0) == settings.FULL
    short = settings.scale_of(cli_demo.STEPS // 10, 3)
    assert short.finetuning_steps == settings.FULL.finetuning_steps // 10
    assert short.seed == 3


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
    words: list[str], code: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--output", str(tmp_path), *words]) == code
    assert told in capsys.readouterr().err


def test_the_former_spelling_of_the_length_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = []

    def run_demo(output: Path, *, scale: settings.Scale, **_: object) -> None:
        given.append(scale.steps)
        raise DemoError("enough")

    monkeypatch.setattr(run, "run_demo", run_demo)
    for words in (["--minutes", "0.5"], ["--steps", "300"], []):
        assert main(["demo", "--output", str(tmp_path), *words]) == 1
        told = capsys.readouterr().err
        assert ("warning: --minutes 0.5 is now --steps 300" in told) == ("--minutes" in words)
    assert given == [300, 300, cli_demo.STEPS]


def test_first_and_last_loss_are_means_of_a_twentieth() -> None:
    curve = LossCurve(list(range(40)), [4.0, 2.0, *[1.0] * 36, 0.5, 0.7], [1e-3] * 40)
    assert run.ends(curve) == (3.0, pytest.approx(0.6))
