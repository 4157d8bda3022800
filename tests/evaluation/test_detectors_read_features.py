"""Temporal detectors' own readers on our features, with the settings of docs/guide/features.md.

Run with the checkouts of actionformer_release and OpenTAD in ACTIONFORMER and OPENTAD, and what
they import: h5py, joblib and the built nms_1d_cpu; mmengine, pandas, torchvision. Skipped
without them.
"""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.videos import write_video
from videomae_fast import MAEConfig, VideoClassifier
from videomae_fast.cli.program import main

FRAMES, STRIDE, WIDTH = 81, 4, 32
SECONDS = (0.5, 2.0)  # of an action
NAME = "video_validation_0000051"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features as the command writes them, and THUMOS14's annotations as both have them."""
    folder = tmp_path_factory.mktemp("temporal")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VideoClassifier(MAEConfig(width=WIDTH, depth=1, heads=2), 5).eval()
    torch.save({"module": model.state_dict()}, folder / "weights.pth")
    video = write_video(folder / f"{NAME}.mp4", FRAMES)
    words = [str(folder / "weights.pth"), str(video), str(folder / "features")]
    options = ["--preset", "thumos14", "--heads", "2", "--device", "cpu"]
    assert main(["features", *words, *options]) == 0
    fps = told(folder)["fps"]
    annotation = {"label": "Diving", "label_id": 0, "segment": list(SECONDS)}
    about = {
        "subset": "validation", "duration": FRAMES / fps, "fps": fps, "frame": FRAMES,
        "annotations": [annotation],
    }  # fmt: skip
    (folder / "thumos14.json").write_text(json.dumps({"database": {NAME: about}}))
    (folder / "classes.txt").write_text("Diving\n")
    (folder / "features" / "missing_files.txt").write_text("")
    return folder


def told(folder: Path) -> Any:
    return json.loads((folder / "features" / f"{NAME}.json").read_text())


def checkout(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a checkout importable for a test."""
    root = os.environ.get(name)
    if root is None:
        pytest.skip(f"{name} names no checkout")
    monkeypatch.syspath_prepend(root)


def check_moments(place: Path, segments: Any) -> None:
    """Where an action lies among the features: by the centres that the JSON beside them has."""
    centres = told(place)["centres"]
    expected = np.interp(SECONDS, centres, np.arange(len(centres)))
    np.testing.assert_allclose(np.asarray(segments)[0], expected, atol=1 / STRIDE)  # a frame


@pytest.mark.parametrize("training", [False, True])
def test_actionformer(training: bool, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout("ACTIONFORMER", monkeypatch)
    dataset = import_module("libs.datasets").make_dataset(
        "thumos", training, ["validation"],
        feat_folder=str(place / "features"), json_file=str(place / "thumos14.json"),
        feat_stride=4, num_frames=16, default_fps=None, downsample_rate=1, max_seq_len=2304,
        trunc_thresh=0.5, crop_ratio=[0.9, 1.0], input_dim=WIDTH, num_classes=1, file_prefix=None,
        file_ext=".npy", force_upsampling=False,
    )  # fmt: skip
    (item,) = [dataset[number] for number in range(len(dataset))]
    stored = np.load(place / "features" / f"{NAME}.npy")
    assert item["feats"].dtype == torch.float32
    if not training:  # training cuts some off
        assert torch.equal(item["feats"].T, torch.from_numpy(stored))
        check_moments(place, item["segments"])
    assert item["feats"].shape[0] == WIDTH
    assert item["video_id"] == NAME


def test_opentad(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout("OPENTAD", monkeypatch)
    datasets = import_module("opentad.datasets")
    keys = ["feats", "gt_segments", "gt_labels"]
    config = {
        "type": "ThumosPaddingDataset",
        "ann_file": str(place / "thumos14.json"), "subset_name": "validation",
        "data_path": f"{place}/features/", "block_list": f"{place}/features/missing_files.txt",
        "class_map": str(place / "classes.txt"), "filter_gt": False,
        "feature_stride": 4, "sample_stride": 1, "offset_frames": 8,
        "pipeline": [
            {"type": "LoadFeats", "feat_format": "npy"},
            {"type": "ConvertToTensor", "keys": keys},
            {"type": "Rearrange", "keys": ["feats"], "ops": "t c -> c t"},
            {"type": "Collect", "inputs": "feats", "keys": ["masks", *keys[1:]]},
        ],
    }  # fmt: skip
    (item,) = list(datasets.build_dataset(config))
    stored = np.load(place / "features" / f"{NAME}.npy")
    assert torch.equal(item["inputs"].T, torch.from_numpy(stored))
    assert item["masks"].all()
    check_moments(place, item["gt_segments"])
