"""Features against the official script: equal first, then timed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.official.model import OfficialClassifier
from benchmarks.official.windows import official_windows
from benchmarks.studies import features
from tests.support.downstream import downstream
from tests.support.videos import write_video


def test_it_is_recorded(tmp_path, capsys):
    pytest.importorskip("decord")
    words = ["--tiny", "--threads", "1", "--repeats", "2", "--windows", "3", "--batch", "2"]
    assert main(["features", *words, "--frame-size", "96", "64", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("features-tiny-cpu-*.json")
    record = json.loads(path.read_text())
    assert (record["windows"], record["width"]) == (3, 32)
    assert record["video"]["frames"] == 24
    assert 0 <= record["difference"] <= 1e-5
    official, ours = record["rows"]
    assert [row["contender"] for row in record["rows"]] == ["official", "ours"]
    assert all(len(row["times"]) == 2 for row in record["rows"])
    assert record["speedup"] == ours["windows_per_s"] / official["windows_per_s"]
    assert "| ours |" in capsys.readouterr().out
    assert "| official |" in path.with_suffix(".md").read_text()


def test_what_differs_is_not_timed(monkeypatch, tmp_path, capsys):
    pytest.importorskip("decord")
    right = features.video_features
    monkeypatch.setattr(features, "video_features", lambda *a, **k: right(*a, **k) + 2e-5)
    words = ["--tiny", "--threads", "1", "--windows", "1", "--frame-size", "96", "64"]
    assert main(["features", *words, "--out", str(tmp_path)]) == 1
    assert "features differ by 2" in capsys.readouterr().err
    assert not [*tmp_path.glob("*.json")]


def test_shapes_and_what_is_no_number_differ():
    row = np.zeros((1, 2), np.float32)
    with pytest.raises(RuntimeError, match=r"\(1, 2\), ours \(2, 2\)"):
        features.difference(row, np.zeros((2, 2), np.float32))
    with pytest.raises(RuntimeError, match="differ by nan"):
        features.difference(row, row * np.nan)


def test_the_transcription_gives_the_official_features(monkeypatch):
    """Golden frames in the place of decord's."""
    decord = pytest.importorskip("decord")
    official = downstream("tad")
    data = official.tensors
    model = OfficialClassifier(official.config, 1).eval()
    model.load_state_dict(official.parameters, strict=False)

    class Reader:
        def __init__(self, *_args, **_settings):
            self.frames = data["frames"]

        def __len__(self):
            return len(self.frames)

        def get_batch(self, ids):
            frames = self.frames[torch.as_tensor(ids)]
            return type("Batch", (), {"asnumpy": lambda self: frames.numpy()})()

    monkeypatch.setattr(decord, "VideoReader", Reader)
    for name, stride in (("THUMOS14", 4), ("FINEACTION", 16)):
        found = official_windows(model, Path("any.mp4"), stride)
        wanted = data[f"features/{name}"]
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5, atol=1e-5)


def test_a_short_video_fails_as_there(tmp_path):
    pytest.importorskip("decord")
    video = write_video(tmp_path / "short.mp4", 9)
    with pytest.raises(ValueError, match="9 frames, and a window has 16"):
        official_windows(OfficialClassifier(features.TINY, 1), video, 4)
