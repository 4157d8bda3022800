"""Detection runs: learning, resuming, validation, weights to begin from, and what is refused."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.boxed import SIDE, boxed_source, tiny_detection, write_boxed
from tests.support.runs import interrupt_after, losses, quiet
from videomae_fast.data.errors import ListError
from videomae_fast.errors import BackendUnavailableError, UsageError, WeightsError
from videomae_fast.interop import load_weights, read_weights
from videomae_fast.models.classifier import VideoClassifier
from videomae_fast.models.detector import ActionDetector
from videomae_fast.recipes import changed
from videomae_fast.tasks.detection.history import DetectionHistory
from videomae_fast.tasks.detection.training import build_detector, train_detector
from videomae_fast.tasks.detection.weights import begin_detector_from
from videomae_fast.tasks.engine import shape_of
from videomae_fast.training.checkpoint import checkpoints, read
from videomae_fast.training.errors import CheckpointError, InterruptedRunError


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("boxed")
    write_boxed(folder, 16, 6)
    return folder


def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    boxed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_detection(boxed, model__drop_path=0.2, model__head_dropout=0.1)
    train_detector(config, output=tmp_path / "whole", log=quiet)
    for stopped_at in (0, 1):
        with monkeypatch.context() as patch:
            interrupt_after(patch, stopped_at, lambda: os.kill(os.getpid(), signal.SIGTERM))
            with pytest.raises(InterruptedRunError):
                train_detector(config, output=tmp_path / "stopped", log=quiet)
    train_detector(config, output=tmp_path / "stopped", log=quiet)
    assert len(losses(tmp_path / "whole")) == 4
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    assert (tmp_path / "stopped/validation.jsonl").read_bytes() == (
        tmp_path / "whole/validation.jsonl"
    ).read_bytes()
    states = [read(checkpoints(tmp_path / run / "checkpoints")[0]) for run in ("whole", "stopped")]
    whole, stopped = ({**one.model(), **one.optimizer()} for one in states)
    for name, tensor in whole.items():
        assert torch.equal(tensor, stopped[name]), name
    best = [load_weights(tmp_path / run / "best.safetensors") for run in ("whole", "stopped")]
    assert all(torch.equal(tensor, best[1][name]) for name, tensor in best[0].items())


@pytest.mark.parametrize("over", ["clips", "boxes"])
def test_accumulation_changes_nothing(over: str, boxed: Path, tmp_path: Path) -> None:
    found = []
    for parts in (1, 2, 3):  # the last one's are not of one size
        config = tiny_detection(
            boxed, validated=False, optim__accumulation=parts, schedule__epochs=1,
            optim__mean_over=over,
        )  # fmt: skip
        train_detector(config, output=tmp_path / str(parts), log=quiet)
        found.append(losses(tmp_path / str(parts)))
    for one, *others in zip(*found, strict=True):
        for other in others:
            assert one == pytest.approx(other, rel=2e-5)


def test_json_and_csv_and_what_reads_them_are_the_same(boxed: Path, tmp_path: Path) -> None:
    """The same boxes in pixels and in shares, read by another process: the same losses."""
    found = []
    for name, workers in (("train.csv", 0), ("train.json", 1)):
        config = changed(
            tiny_detection(boxed, validated=False, schedule__epochs=1, data__workers=workers),
            {"data.lists": (boxed_source(boxed, name),)},
        )
        said: list[str] = []
        train_detector(config, output=tmp_path / name, log=said.append)
        found.append(losses(tmp_path / name))
        assert any("16 key frames with 32 boxes" in line for line in said)
    for one, two in zip(*found, strict=True):
        assert one == pytest.approx(two, rel=1e-3)  # shares have 6 decimals


def test_a_run_goes_on_with_the_same_boxes_only(boxed: Path, tmp_path: Path) -> None:
    lines = (boxed / "train.csv").read_text().splitlines()
    (tmp_path / "frames").symlink_to(boxed / "frames")

    def go_on(lines: list[str], steps: int) -> int:
        (tmp_path / "train.csv").write_text("\n".join(lines))
        config = tiny_detection(
            tmp_path, validated=False, schedule__steps=steps, schedule__warmup_epochs=0
        )
        return train_detector(config, output=tmp_path / "run", log=quiet).steps

    assert go_on(lines, 1) == 1
    assert go_on(["", *lines], 2) == 2
    places = [line.rpartition(",")[0] for line in lines]
    box = next(line for line, one in zip(lines, places, strict=True) if places.count(one) == 1)
    name, second, *place, action = box.split(",")
    moved = ",".join([name, second, *(f"{float(value) / 2:.6f}" for value in place), action])
    with pytest.raises(CheckpointError, match=r"run: boxes_sha256 was .*\. Give"):
        go_on([moved if line == box else line for line in lines], 3)
    other = ",".join([name, second, *place, "1" if action != "1" else "2"])
    with pytest.raises(CheckpointError, match="run: boxes_sha256 was"):
        go_on([other if line == box else line for line in lines], 3)
    with pytest.raises(CheckpointError, match="key_frames_sha256 was"):
        go_on(lines[::-1], 3)


def test_where_clips_are_cut_changes_nothing(boxed: Path, tmp_path: Path) -> None:
    for where in ("worker", "device"):
        config = tiny_detection(boxed, schedule__epochs=1, data__crop_on=where)
        train_detector(config, output=tmp_path / where, log=quiet)
    assert losses(tmp_path / "device") == losses(tmp_path / "worker")


def test_a_decoder_of_a_gpu_is_refused_on_a_cpu(boxed: Path, tmp_path: Path) -> None:
    config = tiny_detection(boxed, data__device_decoder="torchcodec-cuda")
    with pytest.raises(BackendUnavailableError, match="decodes on a GPU, not on cpu"):
        train_detector(config, output=tmp_path, log=quiet)


def test_the_best_weights_are_a_detector_with_its_actions(boxed: Path, tmp_path: Path) -> None:
    said: list[str] = []
    config = tiny_detection(boxed, data__label_map=str(boxed / "actions.pbtxt"))
    train_detector(config, output=tmp_path, log=said.append)
    best, last = read_weights(tmp_path / "best.safetensors"), read_weights(tmp_path)
    assert best.kind == last.kind == "detector"
    assert best.labels == last.labels == ("left", "right", "up", "down", "big")
    assert best.options == last.options
    model = best.model()
    assert isinstance(model, ActionDetector)
    assert model.rois.size == 3
    every = DetectionHistory(tmp_path).epochs
    assert [one.step for one in every] == [2, 4]
    assert every[0].best
    assert all((one.key_frames, one.boxes, one.failed) == (6, 12, 0) for one in every)
    text = "\n".join(said)
    assert "learning rate 0.00187 falling to 3.12e-08: base_lr 0.06" in text
    assert "val.csv: no proposals, so actions are looked for in the annotated boxes" in text


def test_patience_and_rare_validation(boxed: Path, tmp_path: Path) -> None:
    said: list[str] = []
    config = tiny_detection(
        boxed, optim__base_lr=0.0, optim__min_lr=0.0, schedule__epochs=9, schedule__patience=1,
        schedule__validate_every=2,
    )  # fmt: skip
    result = train_detector(config, output=tmp_path, log=said.append)
    assert result.steps == 8  # the best of epoch 2, and one more
    assert [one.step for one in DetectionHistory(tmp_path).epochs] == [4, 8]
    assert "has not become better in 1 validations" in said[-1]


def test_what_cannot_be_read_is_left_out_by_name(boxed: Path, tmp_path: Path) -> None:
    (tmp_path / "frames").symlink_to(boxed / "frames")
    for name in ("train", "val"):
        lines = (boxed / f"{name}.csv").read_text()
        (tmp_path / f"{name}.csv").write_text(lines + "gone,1,0.1,0.1,0.5,0.5,2\n")
    said: list[str] = []
    config = tiny_detection(tmp_path, schedule__epochs=1, optim__videos_per_step=17)
    train_detector(config, output=tmp_path / "run", log=said.append)
    (epoch,) = DetectionHistory(tmp_path / "run").epochs
    assert (epoch.key_frames, epoch.failed) == (6, 1)
    line = len((tmp_path / "val.csv").read_text().splitlines())
    text = "\n".join(said)
    assert f"left out of validation: {tmp_path}/frames/gone ({tmp_path}/val.csv:{line}): no" in text
    assert "1 videos are not in its root, as gone" in text
    assert "1 of 17 draws could not be read" in text


def test_validation_that_cannot_be_read_ends_no_run(boxed: Path, tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for name in ("val0", "val1"):
        (tmp_path / "frames" / name).mkdir()
    lines = (boxed / "val.csv").read_text().splitlines(keepends=True)
    chosen = [line for line in lines if line.startswith(("val0,", "val1,"))]
    (tmp_path / "val.csv").write_text("".join(chosen))
    config = changed(
        tiny_detection(boxed, schedule__epochs=1),
        {"data.validation": (boxed_source(tmp_path, "val.csv"),)},
    )
    said: list[str] = []
    train_detector(config, output=tmp_path / "run", log=said.append)
    (line,) = DetectionHistory(tmp_path / "run").epochs
    assert (line.mean, line.best, line.failed) == (None, None, 2)
    assert any("nothing to score: 2 key frames could not be read" in one for one in said)
    assert not (tmp_path / "run/best.safetensors").exists()


def test_a_frame_without_a_box_in_the_crop_counts_nothing(boxed: Path, tmp_path: Path) -> None:
    """Crops too small for most boxes: steps with few boxes or none are made all the same."""
    config = tiny_detection(
        boxed, validated=False, model__image_size=8, schedule__epochs=1, optim__videos_per_step=1
    )
    train_detector(config, output=tmp_path, log=quiet)
    found = losses(tmp_path)
    assert any(loss == 0 for _, loss, _, _ in found)
    assert any(loss > 0 for _, loss, _, _ in found)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,1,0,0,1,1,1\na,2,0,0,1,1,7\n", {"data__classes": 5},
         r"train\.csv:2: class 7 is none of 1 to 5"),
        ("a,1,0,0,1,1,1\na,one,0,0,1,1,2\n", {}, r"train\.csv:2: timestamp 'one' is no number"),
        ("a,1,0,0,60,1,1\n", {}, r"train\.csv:1: boxes are in shares"),
        ("a,1\n", {}, r"train\.csv: has no box with an action"),
        ("nobody,1,0,0,1,1,1\n", {}, "not one of its 1 videos is in .*, as nobody"),
        ("train0,1,0,0,1,1,1\n", {}, "shorter than one step of 8 videos"),
        ("a,1,0,0,1,1,1\n", {"model__image_size": 33}, "the model can't be"),
    ],
)  # fmt: skip
def test_what_is_refused_before_a_run(
    text: str, options: dict[str, Any], message: str, boxed: Path, tmp_path: Path
) -> None:
    (tmp_path / "frames").symlink_to(boxed / "frames")
    (tmp_path / "train.csv").write_text(text)
    config = tiny_detection(tmp_path, validated=False, **options)
    with pytest.raises((UsageError, ListError, ValueError), match=message):
        train_detector(config, output=tmp_path / "run", log=quiet)


def test_a_key_frame_of_two_validation_lists_is_refused(boxed: Path, tmp_path: Path) -> None:
    lists = (boxed_source(boxed, "val.csv"), boxed_source(boxed, "val.json"))
    config = changed(tiny_detection(boxed), {"data.validation": lists})
    with pytest.raises(ListError, match=r"val\.json:1: key frame 1 of val0 is one of .*val\.csv"):
        train_detector(config, output=tmp_path / "run", log=quiet)


def test_what_can_not_be_scored_is_refused_before_a_run(boxed: Path, tmp_path: Path) -> None:
    (tmp_path / "other.pbtxt").write_text('item { name: "swim" id: 6 }')
    config = tiny_detection(boxed, data__label_map=str(tmp_path / "other.pbtxt"))
    with pytest.raises(ListError, match=r"val\.csv: no action that counts is annotated"):
        train_detector(config, output=tmp_path / "run", log=quiet)


def test_beginnings(boxed: Path, tmp_path: Path) -> None:
    """Of a classifier the encoder, of pre-training also the norm, of a detector all."""
    from videomae_fast.interop import ModelWeights, write_weights
    from videomae_fast.interop.weights.model_weights import detector_options, origin_of

    config = tiny_detection(boxed, validated=False, run__seed=1)
    torch.manual_seed(3)
    classifier = VideoClassifier(shape_of(config), 7)
    torch.nn.init.normal_(classifier.fc_norm.weight)
    detector = build_detector(tiny_detection(boxed, run__seed=2), 5)
    files = {}
    for kind, model in (("classifier", classifier), ("detector", detector)):
        state = {key: value.detach().clone() for key, value in model.state_dict().items()}
        origin = origin_of(kind, "ours", state)
        options = detector_options(detector) if kind == "detector" else {}
        weights = ModelWeights(kind, shape_of(config), state, origin, options=options)  # type: ignore[arg-type]
        files[kind] = tmp_path / f"{kind}.safetensors"
        write_weights(weights, files[kind], "ours")
    said: list[str] = []
    made = build_detector(config, 5)
    head = made.head.weight.clone()
    record = begin_detector_from(made, files["classifier"], said.append, init_norm="new")
    assert record["new"] == ["head.bias", "head.weight", "norm.bias", "norm.weight"]
    assert torch.equal(made.head.weight, head)
    assert torch.equal(made.norm.weight, torch.ones_like(made.norm.weight))
    assert torch.equal(made.blocks[1].mlp.fc1.weight, classifier.blocks[1].mlp.fc1.weight)
    text = "\n".join(said)
    assert "stays new: detector norm (96 values), classifier head (245 values)" in text
    assert "left out: classifier norm (96 values), classifier head (343 values)" in text
    begin_detector_from(made, files["classifier"], said.append, init_norm="fc_norm")
    assert torch.equal(made.norm.weight, classifier.fc_norm.weight)
    assert "norm of the tokens: the classifier's fc_norm" in said[-1]
    record = begin_detector_from(made, files["detector"], said.append, init_norm="new")
    assert record["new"] == []
    assert torch.equal(made.head.weight, detector.head.weight)
    other = tiny_detection(boxed, validated=False, model__trained_frames=8)
    with pytest.raises(WeightsError, match="give --trained-frames 4"):
        begin_detector_from(
            build_detector(other, 5), files["classifier"], said.append, init_norm="new"
        )


def test_pretraining_weights_bring_their_norm(boxed: Path, tmp_path: Path) -> None:
    from videomae_fast.interop import ModelWeights, write_weights
    from videomae_fast.interop.weights.model_weights import origin_of
    from videomae_fast.models.masked_autoencoder import MaskedAutoencoder

    config = tiny_detection(boxed, validated=False, schedule__epochs=1)
    torch.manual_seed(4)
    model = MaskedAutoencoder(shape_of(config))
    torch.nn.init.normal_(model.encoder.norm.weight)
    state = {key: value.detach().clone() for key, value in model.state_dict().items()}
    weights = ModelWeights("pre-training", model.config, state, origin_of("a", "ours", state))
    write_weights(weights, tmp_path / "a.safetensors", "ours")
    said: list[str] = []
    made = build_detector(config, 5)
    record = begin_detector_from(made, tmp_path / "a.safetensors", said.append, init_norm="new")
    assert record["new"] == ["head.bias", "head.weight"]
    assert torch.equal(made.norm.weight, model.encoder.norm.weight)
    assert any(line.startswith("left out: encoder to decoder") for line in said)
    assert SIDE % made.config.patch_size == 0
