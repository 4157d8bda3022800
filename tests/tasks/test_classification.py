"""Fine-tuning runs: learning, resuming, validation, and what is refused."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.labelled import TINY, tiny_config
from tests.support.launches import COMMAND, Host
from tests.support.runs import interrupt_after, losses, quiet
from videomae_fast import cli
from videomae_fast.data.errors import ListError, OutputError
from videomae_fast.errors import UsageError
from videomae_fast.interop import load_weights, read_weights
from videomae_fast.recipes import Source
from videomae_fast.tasks import classification
from videomae_fast.tasks.classification import finetune
from videomae_fast.tasks.labelled import strides_without_use
from videomae_fast.tasks.validation import History
from videomae_fast.training.checkpoint import checkpoints, read
from videomae_fast.training.errors import CheckpointError, InterruptedRunError

Lists = tuple[Path, Path]


def test_a_small_set_is_learned(learned: tuple[Path, list[str]]) -> None:
    output, said = learned
    epochs = History(output).epochs
    assert [one.step for one in epochs] == [4 * (i + 1) for i in range(14)]
    assert (epochs[-1].weights.top1 or 0) >= 0.75  # chance is 0.25
    assert ((epochs[-1].average and epochs[-1].average.top1) or 0) >= 0.75
    assert epochs[-1].weights.videos == 24
    text = "\n".join(said)
    assert "learning rate 0.00156 falling to 3.12e-08: base_lr 0.05" in text
    assert "validation after 56 steps: top-1 " in text
    assert "validation of the weights' average: top-1 " in text
    assert "all are drawn from the seed" in text


def test_the_best_weights_are_kept_with_their_classes(learned: tuple[Path, list[str]]) -> None:
    output, _ = learned
    best = read_weights(output / "best.safetensors")
    last = read_weights(output)
    assert (best.kind, best.classes, best.labels) == (
        "classifier", 4, ("down", "left", "right", "up"),
    )  # fmt: skip
    assert (last.kind, last.labels, last.config) == ("classifier", best.labels, best.config)
    epochs = History(output).epochs
    top = max(one.top1 for one in epochs)
    assert next(one for one in epochs if one.top1 == top).best
    assert not any(one.best for one in epochs if one.step > _first(epochs, top))


def _first(epochs: Any, top: float) -> int:
    step: int = next(one.step for one in epochs if one.top1 == top)
    return step


def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    lists: Lists, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(
        *lists, optim__ema_decay=0.9, model__drop_path=0.2, augment__operations=2,
        augment__erase=0.5, schedule__epochs=2,
    )  # fmt: skip
    finetune(config, output=tmp_path / "whole", log=quiet)
    for stopped_at in (2, 5):
        with monkeypatch.context() as patch:
            interrupt_after(patch, stopped_at % 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
            with pytest.raises(InterruptedRunError):
                finetune(config, output=tmp_path / "stopped", log=quiet)
    finetune(config, output=tmp_path / "stopped", log=quiet)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    assert (tmp_path / "stopped/validation.jsonl").read_bytes() == (
        tmp_path / "whole/validation.jsonl"
    ).read_bytes()
    states = [read(checkpoints(tmp_path / run / "checkpoints")[0]) for run in ("whole", "stopped")]
    whole, stopped = ({**one.model(), **one.optimizer()} for one in states)
    assert any(name.startswith("ema.") for name in whole)
    for name, tensor in whole.items():
        assert torch.equal(tensor, stopped[name]), name
    best = [load_weights(tmp_path / run / "best.safetensors") for run in ("whole", "stopped")]
    assert all(torch.equal(tensor, best[1][name]) for name, tensor in best[0].items())


def test_a_run_goes_on_with_the_same_labels_only(lists: Lists, tmp_path: Path) -> None:
    lines = lists[0].read_text().splitlines()[:8]
    files = tmp_path / "here.csv", tmp_path / "there.csv", tmp_path / "other.csv"
    for file in files[:2]:
        file.write_text("\n".join(lines))
    turned = [f"{path} {3 - int(label)}" for path, label in (line.split() for line in lines)]
    files[2].write_text("\n".join(turned))
    names = tmp_path / "names.txt"
    names.write_text("a\nb\nc\nd\n")

    def go_on(file: Path, epochs: int) -> int:
        config = tiny_config(file, data__classes=str(names), schedule__epochs=epochs)
        return finetune(config, output=tmp_path / "run", log=quiet).steps

    assert go_on(files[0], 1) == 1
    assert go_on(files[1], 2) == 2  # a list may lie elsewhere
    with pytest.raises(CheckpointError, match="of another run: labels_sha256 was '"):
        go_on(files[2], 3)
    last = [lines[0].replace("/0.mp4", "/7.mp4"), *lines[1:]]
    files[2].write_text("\n".join(last))
    with pytest.raises(CheckpointError, match=r"of another run: paths_sha256 was \['"):
        go_on(files[2], 3)
    names.write_text("b\na\nc\nd\n")
    with pytest.raises(CheckpointError, match="of another run: labels_sha256 was '"):
        go_on(files[0], 3)


def test_strides_of_sparse_clips_are_told_to_do_nothing(lists: Lists) -> None:
    with_stride = Source(lists[1], format="labels", stride=3)
    data = tiny_config(lists[0], data__validation=(with_stride,), data__stride=2).data
    assert strides_without_use(data) is None
    told = strides_without_use(replace(data, sampling="sparse"))
    assert told == (
        "without effect: data.stride 2, val.csv's stride 3, as sparse clips spread over the whole "
        "video"
    )
    assert strides_without_use(replace(tiny_config(*lists).data, sampling="sparse")) is None


@pytest.mark.parametrize("videos", [8, 5], ids=["full", "with an empty place"])
def test_accumulation_changes_nothing_where_nothing_is_mixed(
    videos: int, lists: Lists, tmp_path: Path
) -> None:
    found = []
    for parts in (1, 2):
        config = tiny_config(
            lists[0], mix__mixup=0.0, mix__cutmix=0.0, optim__accumulation=parts,
            schedule__epochs=1, optim__videos_per_step=videos,
        )  # fmt: skip
        finetune(config, output=tmp_path / str(parts), log=quiet)
        found.append(losses(tmp_path / str(parts)))
    for one, two in zip(*found, strict=True):
        assert one == pytest.approx(two, rel=2e-5)


def test_two_processes_validate_as_one_does(lists: Lists, host: Host, tmp_path: Path) -> None:
    """Sharded too: what is validated, averaged and kept as best is whole."""
    found, best, steps = [], [], []
    sharded = ("--shard", "all", "--reshard", "yes")
    for name, more in (("one", ()), ("two", ()), ("sharded", sharded)):
        words = ["finetune", "--output", str(tmp_path / name)]
        words += ["--data", str(lists[0]), "--validation", str(lists[1]), "--classes", "none"]
        given = {**TINY, "schedule.epochs": 1, "schedule.warmup_epochs": 0, "mix.mixup": 0.0,
                 "mix.cutmix": 0.0, "augment.area": "0.9,1.0", "optim.ema_decay": 0.5,
                 "model.drop_path": 0.2}  # fmt: skip
        words += [
            *more,
            *(word for key, value in given.items() for word in ("--set", f"{key}={value}")),
        ]
        if name == "one":
            assert cli.main(words) == 0
        else:
            host.start(2, COMMAND, words, tmp_path / f"{name}.log").finish()
        (epoch,) = History(tmp_path / name).epochs
        assert epoch.average is not None
        steps.append(losses(tmp_path / name))
        found.append([epoch.weights, epoch.average])
        best.append(load_weights(tmp_path / name / "best.safetensors"))
    for one_step, *other_steps in zip(*steps, strict=True):
        for step in other_steps:
            assert step == pytest.approx(one_step, rel=1e-4), "drop path is by clip"
    for one, *others in zip(*found, strict=True):
        for other in others:
            assert (other.videos, other.failed) == (one.videos, one.failed) == (24, 0)
            assert other.loss == pytest.approx(one.loss, rel=1e-4)
    assert best[0].keys() == best[1].keys() == best[2].keys()
    for name, tensor in best[1].items():
        torch.testing.assert_close(best[2][name], tensor, rtol=1e-2, atol=1e-3, msg=name)


def test_patience_ends_a_run_for_good(lists: Lists, tmp_path: Path) -> None:
    said: list[str] = []
    config = tiny_config(
        *lists, schedule__epochs=9, schedule__patience=2, optim__base_lr=0.0, optim__min_lr=0.0
    )
    result = finetune(config, output=tmp_path / "run", log=said.append)
    assert result.steps == 12  # the best of epoch 1, and two more
    assert "has not become better for 2 epochs" in said[-1]
    assert any(line.startswith("warning: top-1 ") for line in said)
    again = finetune(config, output=tmp_path / "run", log=said.append)
    assert (again.steps, again.checkpoint) == (12, result.checkpoint)
    assert len(History(tmp_path / "run").epochs) == 3


def test_videos_that_cannot_be_read_are_left_out(lists: Lists, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    val = tmp_path / "val.csv"
    val.write_text(f"{broken} 1\n" + lists[1].read_text())
    train = tmp_path / "train.csv"
    train.write_text(f"{broken} 2\n" * 2 + lists[0].read_text())
    said: list[str] = []
    finetune(tiny_config(train, val, schedule__epochs=1), output=tmp_path / "run", log=said.append)
    (epoch,) = History(tmp_path / "run").epochs
    assert (epoch.weights.videos, epoch.weights.failed) == (24, 1)
    assert any(line.startswith(f"left out of validation: {broken}") for line in said)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a.mp4 0\nb.mp4 7\nc.mp4 9\n", {"data__classes": "names.txt"},
        r"train\.csv:2: label 7 is none of the 3 classes named in data\.classes .*1 more is "),
        ("a.mp4 0\n", {"data__classes": "missing.txt"}, r"missing\.txt: can't be read"),
        ("a.mp4 0\n", {"data__classes": "twice.txt"}, r"twice\.txt:3: 'one' is the class of line"),
        ("a.mp4 0\n" * 9, {"optim__videos_per_step": 3, "data__samples": 1},
         "3 clips of a micro-batch can't be mixed in pairs"),
        ("a.mp4 0\n" * 9, {"augment__area": (0.9, 0.1)}, "augment: area"),
        ("a.mp4 0\n" * 9, {"model__image_size": 33}, "the model can't be"),
        ("a.mp4 0\n" * 9, {"model__mlp_ratio": 1e-9}, "the model can't be: MLPs have no hidden"),
        ("a.mp4 0\n" * 9, {"model__learned_positions": True, "model__other_grids": "recomputed",
         "model__trained_frames": 8}, "can be interpolated, but not recomputed; leave"),
        ("a.mp4 0\n" * 9, {"model__head_index": "rows.json"}, "model.init names none"),
    ],
)  # fmt: skip
def test_what_is_refused_before_a_run(
    text: str,
    options: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.csv").write_text(text)
    Path("names.txt").write_text("one\ntwo\nthree\n")
    Path("twice.txt").write_text("one\ntwo\none\n")
    with pytest.raises((UsageError, ListError), match=message):
        finetune(tiny_config(Path("train.csv"), **options), output="run", log=quiet)
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_folder_that_goes_while_a_run_validates(
    how: str, lists: Lists, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said so, and the folder is not made again."""
    output, score = tmp_path / "run", classification.score_videos

    def vanishing(*given: Any, **options: Any) -> Any:
        yield from score(*given, **options)
        shutil.rmtree(output) if how == "removed" else output.rename(tmp_path / "moved")

    monkeypatch.setattr(classification, "score_videos", vanishing)
    with pytest.raises(OutputError, match="run: was removed, moved or given to another process"):
        finetune(tiny_config(*lists, schedule__epochs=1), output=output, log=quiet)
    assert not output.exists()


def test_validation_labels_are_checked_and_empty_classes_told(lists: Lists, tmp_path: Path) -> None:
    val = tmp_path / "val.csv"
    val.write_text("a.mp4 3\nb.mp4 4\n")
    with pytest.raises(ListError, match=r"val\.csv:2: label 4 is none of the 4 classes that the"):
        finetune(tiny_config(lists[0], val), output=tmp_path / "a", log=quiet)
    names = tmp_path / "names.txt"
    names.write_text("down\nleft\nright\nup\nsideways\n")
    said: list[str] = []
    config = tiny_config(lists[0], data__classes=str(names), schedule__epochs=1)
    finetune(config, output=tmp_path / "b", log=said.append)
    assert any("1 of 5 classes have no training video" in s and "sideways" in s for s in said)


def test_a_list_without_labels_is_refused(lists: Lists, tmp_path: Path) -> None:
    from videomae_fast.recipes import Source, changed

    config = changed(tiny_config(lists[0]), {"data.lists": (Source(lists[0]),)})
    with pytest.raises(UsageError, match="has no labels: use format=labels"):
        finetune(config, output=tmp_path, log=quiet)
