"""Distillation runs: learning, resuming, stored outputs, and what is refused."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.config

from tests.support.labelled import TINY, tiny_config
from tests.support.launches import COMMAND, Host
from tests.support.runs import interrupt_after, losses, quiet
from videomae_fast import MAEConfig, VideoClassifier, cli
from videomae_fast.data.errors import FailureShareError
from videomae_fast.errors import CheckpointError, UsageError, VideoMAEFastError, WeightsError
from videomae_fast.interop import ModelWeights, read_weights, select_classes, write_weights
from videomae_fast.interop.weights.model_weights import origin_of
from videomae_fast.recipes import DistillConfig, changed, to_plain
from videomae_fast.tasks import teacher_outputs
from videomae_fast.tasks.classification import finetune
from videomae_fast.tasks.distillation import Distillation, distill
from videomae_fast.tasks.teacher import RunningTeacher, Teacher
from videomae_fast.tasks.validation import History
from videomae_fast.training.checkpoint import checkpoints, read
from videomae_fast.training.errors import InterruptedRunError
from videomae_fast.training.metrics import read_metrics

Lists = tuple[Path, Path]
Learned = tuple[Path, list[str]]
UNMIXED = {"mix__mixup": 0.0, "mix__cutmix": 0.0}


def config(lists: Any, teacher: Path, **others: Any) -> DistillConfig:
    """A tiny run; lists: of training alone, or both."""
    both = lists if isinstance(lists, tuple) else (lists,)
    plain = {
        f"{section}.{field}": value
        for section, fields in to_plain(tiny_config(*both)).items()
        if section != "format"
        for field, value in fields.items()
    }
    given = {name.replace("__", "."): value for name, value in others.items()}
    return changed(DistillConfig(), {**plain, "distillation.teacher": str(teacher), **given})


def best(learned: Learned) -> Path:
    return learned[0] / "best.safetensors"


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return dict(read(checkpoints(folder / "checkpoints")[0]).model())


def test_a_student_learns_what_its_teacher_knows(
    lists: Lists, learned: Learned, tmp_path: Path
) -> None:
    said: list[str] = []
    made = config(lists, learned[0], **UNMIXED, schedule__epochs=14, schedule__warmup_epochs=2)
    distill(made, output=tmp_path / "run", log=said.append)
    epochs = History(tmp_path / "run").epochs
    assert (epochs[-1].weights.top1 or 0) >= 0.75  # chance is 0.25
    steps = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert steps[-1]["loss"] < 0.2 * steps[0]["loss"]
    assert steps[-1]["agreement"] > 0.8
    assert steps[-1]["teacher_accuracy"] > 0.8
    assert all(one["teacher_ms"] > 0 and 0 < one["teacher_share"] < 1 for one in steps)
    text = "\n".join(said)
    assert "teacher's head: kept, as it has 4 classes too; their names are not known" in text
    assert "width 48, depth 2, 0.131 million parameters, weights' sha256 " in text
    assert "  teacher " in text
    assert read_weights(tmp_path / "run" / "best.safetensors").classes == 4


@pytest.mark.parametrize("mode", ["logits", "features"])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    mode: str, lists: Lists, learned: Learned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config(
        lists, learned[0], model__drop_path=0.2, distillation__mode=mode,
        distillation__label_share=0.2, optim__ema_decay=0.9,
    )  # fmt: skip
    distill(made, output=tmp_path / "whole", log=quiet)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(InterruptedRunError):
            distill(made, output=tmp_path / "stopped", log=quiet)
    moved = tmp_path / "elsewhere.safetensors"  # no longer the folder, but the same weights
    write_weights(read_weights(learned[0]), moved, "ours")
    again = changed(made, {"distillation.teacher": str(moved)})
    distill(again, output=tmp_path / "stopped", log=quiet)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    whole, stopped = (weights_of(tmp_path / name) for name in ("whole", "stopped"))
    assert whole.keys() == stopped.keys()
    assert all(torch.equal(value, stopped[name]) for name, value in whole.items())
    assert not any("teacher" in name for name in whole)


def test_a_run_goes_on_with_no_other_teacher_or_loss(
    lists: Lists, learned: Learned, tmp_path: Path
) -> None:
    made = config(lists[0], learned[0], schedule__steps=1, schedule__warmup_epochs=0)
    distill(made, output=tmp_path / "run", log=quiet)
    other = other_teacher(tmp_path / "other.safetensors")
    for change, told in (
        ({"distillation.teacher": str(other)}, "teacher was '[0-9a-f]{64}' and is '"),
        ({"distillation.temperature": 2.0}, r"distillation\.temperature was 1\.0 and is 2\.0"),
    ):
        with pytest.raises(CheckpointError, match=told):
            distill(changed(made, change), output=tmp_path / "run", log=quiet)


def test_a_run_does_not_turn_to_stored_outputs(
    lists: Lists, learned: Learned, tmp_path: Path
) -> None:
    """Its clips would be fixed from there on."""
    made = config(lists[0], learned[0], **UNMIXED, schedule__steps=1, schedule__warmup_epochs=0)
    stored = changed(made, {"distillation.outputs": str(tmp_path / "o"), "schedule.steps": 2})
    distill(made, output=tmp_path / "run", log=quiet)
    with pytest.raises(CheckpointError, match="fixed_views was None and is 1"):
        distill(stored, output=tmp_path / "run", log=quiet)
    assert not (tmp_path / "o").exists(), "the teacher said nothing for a run that can't be"
    distill(stored, output=tmp_path / "other", log=quiet)
    (tmp_path / "o").rename(tmp_path / "there")
    moved = {"distillation.outputs": str(tmp_path / "there"), "schedule.steps": 3}
    assert distill(changed(stored, moved), output=tmp_path / "other", log=quiet).steps == 3


def test_a_teacher_that_guesses_is_told(lists: Lists, learned: Learned, tmp_path: Path) -> None:
    """One whose classes are in another order, without names, knows everything and is no use."""
    weights = select_classes(read_weights(learned[0]), [1, 2, 3, 0])
    turned = ModelWeights(
        weights.kind, weights.config, weights.state, weights.origin, changes=weights.changes
    )
    write_weights(turned, tmp_path / "turned.safetensors", "ours")
    for name, teacher in (("right", learned[0]), ("wrong", tmp_path / "turned.safetensors")):
        said: list[str] = []
        made = config(lists[0], teacher, **UNMIXED, schedule__epochs=2)
        distill(made, output=tmp_path / name, log=said.append)
        warnings = [line for line in said if "which is guessing among 4 classes" in line]
        assert len(warnings) == (name == "wrong")


def other_teacher(
    path: Path, labels: tuple[str, ...] | None = None, classes: int = 4, **shape: int
) -> Path:
    torch.manual_seed(5)
    size = {"image_size": 32, "frames": 4, "width": 32, "depth": 2, "heads": 2, **shape}
    shaped = MAEConfig(**size)
    state = VideoClassifier(shaped, classes).state_dict()
    weights = ModelWeights("classifier", shaped, state, origin_of("", "ours", state), labels=labels)
    write_weights(weights, path, "ours")
    return path


def test_features_leave_an_encoder_to_fine_tune(
    lists: Lists, learned: Learned, tmp_path: Path
) -> None:
    said: list[str] = []
    made = config(lists[0], learned[0], distillation__mode="features")
    distill(made, output=tmp_path / "run", log=said.append)
    steps = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert steps[-1]["loss"] < 0.9 * steps[0]["loss"]
    state = weights_of(tmp_path / "run")
    assert {name.split(".")[1] for name in state if name.startswith("alignment.")} == {
        "layers", "pooled",
    }  # fmt: skip
    weights = read_weights(tmp_path / "run")
    assert (weights.kind, weights.classes) == ("classifier", 4)
    assert [change.what for change in weights.changes] == ["left out"]
    text = "\n".join(said)
    assert "of the student and the teacher: 2 and 2, 1 and 1; and the pooled" in text
    assert "labels have no share, so the head stays as it began" in text
    tuned = tiny_config(*lists, model__init=str(tmp_path / "run"), schedule__epochs=1)
    finetune(tuned, output=tmp_path / "tuned", log=quiet)
    with_labels = config(
        lists, learned[0], distillation__mode="features", distillation__label_share=0.5,
        distillation__layers=1, schedule__epochs=1, model__init=str(best(learned)),
    )  # fmt: skip
    distill(with_labels, output=tmp_path / "labels", log=quiet)
    assert read_weights(tmp_path / "labels" / "best.safetensors").changes == ()


def test_a_teacher_of_other_patches_and_more_classes(lists: Lists, tmp_path: Path) -> None:
    """16 pixels of 8, and rows of the run's classes by name, in their order."""
    labels = ("up", "still", "right", "left", "down", "out")
    teacher = other_teacher(tmp_path / "t.safetensors", labels, 6, patch_size=8)
    names = tmp_path / "classes.txt"
    names.write_text("down\nleft\nright\nup\n")
    said: list[str] = []
    made = config(
        lists[0], teacher, data__classes=str(names), schedule__steps=1, schedule__warmup_epochs=0,
        distillation__mode="features", distillation__label_share=0.1,
    )  # fmt: skip
    distill(made, output=tmp_path / "run", log=said.append)
    assert any("the teacher's head: rows of 4 of its 6 classes, by name" in s for s in said)


@pytest.mark.parametrize(
    ("teacher", "options", "message"),
    [
        ({}, {"distillation__teacher": None}, "names no weights: give the teacher's with --t"),
        ({}, {"distillation__teacher": "no.pth"}, r"--teacher no\.pth: no such weights"),
        ({"classes": 5}, {}, "teacher's head was for 5 classes and is new for 4: a teacher has to"),
        ({"labels": ("a", "b", "c", "d")}, {"data__classes": "names.txt"},
         "4 of 4 classes are not among its 4, as 'down': a teacher has to know"),
        ({"classes": 710}, {"data__classes": "names.txt"}, "a teacher has to know the run's class"),
        ({"patch_size": 5}, {}, "the teacher can't take the student's clips"),
        ({"tubelet_size": 1}, {"distillation__mode": "features"}, "4 time slots and the student 2"),
        ({}, {"distillation__mode": "features", "distillation__layers": 3},
         r"distillation\.layers: 3 layers of 2"),
        ({}, {"distillation__trained_frames": 8}, "leave --teacher-trained-frames out"),
    ],
)  # fmt: skip
def test_what_is_refused_before_a_run(
    teacher: dict[str, Any],
    options: dict[str, Any],
    message: str,
    lists: Lists,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("down\nleft\nright\nup\n")
    size = {"patch_size": {"image_size": 30}}.get(next(iter(teacher), ""), {})
    made = other_teacher(Path("t.safetensors"), **{**teacher, **size})
    with pytest.raises((UsageError, WeightsError), match=message):
        distill(config(lists[0], made, **options), output="run", log=quiet)


def test_weights_without_a_head_are_no_teacher(lists: Lists, tmp_path: Path) -> None:
    from videomae_fast import MaskedAutoencoder

    shape = MAEConfig(image_size=32, frames=4, width=32, depth=1, heads=2)
    state = MaskedAutoencoder(shape).state_dict()
    path = tmp_path / "pretrained.safetensors"
    origin = origin_of("", "ours", state)
    write_weights(ModelWeights("pre-training", shape, state, origin), path, "ours")
    with pytest.raises(UsageError, match="holds pre-training weights and no classifier"):
        distill(config(lists[0], path), output=tmp_path / "run", log=quiet)


class Running(Distillation):
    """Stored views, and the teacher on them in every step."""

    def _source(self, found: Any) -> RunningTeacher:
        layers: list[int] = []
        return RunningTeacher(Teacher(found, layers, device=self.world.device, bf16=False))


@pytest.mark.parametrize("videos", [8, 5], ids=["full", "with empty places"])
def test_stored_outputs_are_what_the_teacher_says_of_the_same_clips(
    videos: int, lists: Lists, learned: Learned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config(
        lists[0], learned[0], **UNMIXED, augment__operations=2, augment__erase=0.5,
        optim__accumulation=2, optim__videos_per_step=videos,
        distillation__outputs=str(tmp_path / "outputs"), distillation__views=2,
        distillation__label_share=0.1, schedule__epochs=3,
    )  # fmt: skip
    said: list[str] = []
    distill(made, output=tmp_path / "stored", log=said.append)
    assert any("32 videos x 2 view(s) x 2 clips" in line for line in said)
    assert any(line.endswith("it does not run") or "it does not run" in line for line in said)
    assert {one["teacher_ms"] for one in read_metrics(tmp_path / "stored/metrics.jsonl")} == {0.0}
    with monkeypatch.context() as patch:
        patch.setattr("videomae_fast.tasks.distillation.Distillation", Running)
        distill(made, output=tmp_path / "running", log=quiet)
    stored, running = losses(tmp_path / "stored"), losses(tmp_path / "running")
    assert len(stored) == 3 * (32 // videos)
    for one, two in zip(stored, running, strict=True):
        assert one == pytest.approx(two, rel=1e-4)
    calls: list[int] = []
    monkeypatch.setattr(Teacher, "__init__", lambda *a, **o: calls.append(1))
    distill(made, output=tmp_path / "again", log=quiet)
    assert not calls, "whole outputs need no teacher"
    assert losses(tmp_path / "again") == stored


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_outputs, "LEAST_ROWS", 12)


@pytest.mark.usefixtures("small_parts")
def test_a_stopped_pass_goes_on_and_damage_is_told(
    lists: Lists, learned: Learned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "outputs"
    made = config(
        lists[0], learned[0], **UNMIXED, distillation__outputs=str(folder), schedule__steps=1,
        schedule__warmup_epochs=0, data__validation_batch=4,
    )  # fmt: skip
    forward, calls = Teacher.forward, []

    def counted(self: Teacher, frames: torch.Tensor) -> Any:
        calls.append(len(frames))
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, frames)

    monkeypatch.setattr(Teacher, "forward", counted)
    with pytest.raises(InterruptedRunError, match="whole parts are kept in"):
        distill(made, output=tmp_path / "run", log=quiet)
    assert sorted(each.name for each in folder.iterdir()) == [
        "outputs.json", "part-00000.safetensors",
    ]  # fmt: skip
    kept = (folder / "part-00000.safetensors").stat().st_mtime_ns
    distill(made, output=tmp_path / "run", log=quiet)
    assert (folder / "part-00000.safetensors").stat().st_mtime_ns == kept
    assert len(list(folder.glob("part-*"))) == 3
    assert calls == [8] * (5 + 3 + 2)  # 4 videos x 2 clips: 3 + 2 batches, then 3 + 2 (8 videos)

    last = folder / "part-00002.safetensors"
    last.write_bytes(last.read_bytes()[:-40])
    with pytest.raises(UsageError, match=r"part-00002\.safetensors: can't be read .* made again"):
        distill(made, output=tmp_path / "other", log=quiet)
    last.write_bytes((folder / "part-00001.safetensors").read_bytes())
    with pytest.raises(UsageError, match=r"part-00002\.safetensors: is no part of these outputs"):
        distill(made, output=tmp_path / "other", log=quiet)


def test_outputs_of_something_else_are_refused(
    lists: Lists, learned: Learned, tmp_path: Path
) -> None:
    folder = tmp_path / "outputs"
    made = config(
        lists[0],
        learned[0],
        **UNMIXED,
        distillation__outputs=str(folder),
        schedule__steps=1,
        schedule__warmup_epochs=0,
    )
    distill(made, output=tmp_path / "run", log=quiet)
    other = other_teacher(tmp_path / "other.safetensors")
    short = tmp_path / "short.csv"
    short.write_text("".join(lists[0].read_text().splitlines(keepends=True)[:-1]))
    for change, told in (
        ({"distillation.teacher": str(other)}, r"teacher\.sha256 is '\w{64}' there and '"),
        ({"run.seed": 1}, r"views\.seed is 0 there and 1 here"),
        ({"augment.area": (0.8, 1.0)}, r"views\.area\[0\] is 0\.9 there and 0\.8 here"),
        ({"run.precision": "bf16"}, r"teacher\.precision is 'fp32' there and 'bf16' here"),
        ({"data.lists": [{"path": str(short), "format": "labels"}]},
         r"lists\[0\]\.entries is 32 there and 31 here"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=f"its outputs are of something else: .*{told}"):
            distill(changed(made, change), output=tmp_path / "else", log=quiet)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    change = {"distillation.outputs": str(tmp_path / "full")}
    with pytest.raises(UsageError, match=r"holds other files and no outputs\.json"):
        distill(changed(made, change), output=tmp_path / "else", log=quiet)
    (folder / "outputs.json").write_text("[]")
    with pytest.raises(UsageError, match=r"something else|can't be read"):
        distill(made, output=tmp_path / "else", log=quiet)


def test_what_the_teacher_could_not_read_counts_as_failed(
    lists: Lists, learned: Learned, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    train = tmp_path / "train.csv"
    train.write_text(f"{broken} 2\n" + "".join(lists[0].read_text().splitlines(True)[:7]))
    made = config(
        train, learned[0], **UNMIXED, schedule__epochs=1, schedule__warmup_epochs=0,
        distillation__outputs=str(tmp_path / "outputs"),
    )  # fmt: skip
    said: list[str] = []
    distill(made, output=tmp_path / "run", log=said.append)
    assert any(line.startswith("not known to the teacher: ") for line in said)
    (step,) = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert (step["failed_clips"], step["clips"]) == (2, 16)
    strict = changed(
        made, {"data.max_failed_share": 0.1, "distillation.outputs": str(tmp_path / "strict")}
    )
    with pytest.raises(FailureShareError, match="1 of 8 views could not be read"):
        distill(strict, output=tmp_path / "b", log=quiet)


def test_noise_of_holes_has_to_be_drawn_in_one_place(lists: Lists, learned: Learned) -> None:
    made = config(
        lists[0], learned[0], **UNMIXED, distillation__outputs="o", augment__erase=0.5,
        data__crop_on="device",
    )  # fmt: skip
    with pytest.raises(VideoMAEFastError, match="noise in erased holes differs"):
        distill(made, output="run", log=quiet)


@pytest.mark.parametrize("stored", [False, True], ids=["running", "stored"])
def test_two_processes_train_as_one_does(
    stored: bool, lists: Lists, learned: Learned, host: Host, tmp_path: Path
) -> None:
    found = []
    for name in ("one", "two"):
        words = ["distill", "--output", str(tmp_path / name)]
        words += ["--data", str(lists[0]), "--validation", str(lists[1]), "--classes", "none"]
        words += ["--teacher", str(learned[0])]
        words += ["--teacher-outputs", str(tmp_path / f"{name}-outputs")] if stored else []
        given = {**TINY, "schedule.epochs": 1, "schedule.warmup_epochs": 0, "mix.mixup": 0.0,
                 "mix.cutmix": 0.0, "augment.area": "0.9,1.0"}  # fmt: skip
        words += [word for key, value in given.items() for word in ("--set", f"{key}={value}")]
        if name == "one":
            assert cli.main(words) == 0
        else:
            host.start(2, COMMAND, words, tmp_path / "log").finish()
        found.append([value for row in losses(tmp_path / name) for value in row])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@torch._inductor.config.patch({"cpp.simdlen": 1})  # compiled in a third of the time
def test_a_compiled_run_is_the_eager_one(lists: Lists, learned: Learned, tmp_path: Path) -> None:
    found = []
    for mode in ("eager", "compiled"):
        made = config(
            lists[0], learned[0], **UNMIXED, schedule__steps=1, schedule__warmup_epochs=0,
            distillation__mode="features", distillation__label_share=0.5, run__step_mode=mode,
            distillation__layers=1, model__depth=1,
        )  # fmt: skip
        distill(made, output=tmp_path / mode, log=quiet)
        found.append([value for row in losses(tmp_path / mode) for value in row])
    assert found[0] == pytest.approx(found[1], rel=1e-3)
