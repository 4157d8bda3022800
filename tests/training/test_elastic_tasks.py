"""Fine-tuning and detection that go on in other processes and another layout; exports of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import boxed, labelled
from tests.support.accidents import TARGET, Accident, words_of
from tests.support.launches import Host
from tests.support.runs import losses, options
from videomae_fast import MaskedAutoencoder, cli
from videomae_fast.interop import read_weights
from videomae_fast.tasks.validation import History
from videomae_fast.training.checkpoint import checkpoints, read

STEPS, STOPPED = 4, 2
LAYOUTS = {2: ("--shard", "all", "--reshard", "yes"), 3: (), 4: ("--shard", "2")}


def settings(given: Mapping[str, Any]) -> list[str]:
    plain = {k: ",".join(map(str, v)) if isinstance(v, tuple) else v for k, v in given.items()}
    return [word for key, value in plain.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def tuning(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """With an average, a rate for each layer, drop path by clip, and a validation."""
    lists = labelled.write_set(tmp_path_factory.mktemp("squares"), 8, 2)
    more = {
        "mix.mixup": 0.0, "mix.cutmix": 0.0, "model.drop_path": 0.2, "optim.ema_decay": 0.5,
        "optim.layer_decay": 0.6, "optim.videos_per_step": 7, "schedule.steps": STEPS,
        "schedule.warmup_epochs": 0, "run.log_every": 1,
    }  # fmt: skip
    words = ["finetune", "--data", str(lists[0]), "--validation", str(lists[1])]
    return [*words, "--classes", "none", *settings({**labelled.TINY, **more})]


@pytest.fixture(scope="module")
def detecting(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("boxed")
    boxed.write_boxed(folder, 16, 2)
    given = f"root={folder / 'frames'},fps={boxed.FPS},pattern=img_{{:05}}.png"
    more = {
        "model.drop_path": 0.2, "optim.base_lr": 0.001, "optim.videos_per_step": 5,
        "schedule.steps": STEPS, "schedule.warmup_epochs": 0, "run.log_every": 1,
    }  # fmt: skip
    words = ["detect", "train", "--data", f"{folder / 'train.csv'},{given}", "--classes", "none"]
    words += ["--label-map", str(folder / "actions.pbtxt")]
    return [*words, *settings({**boxed.TINY, **more})]


def tensors(output: Path) -> dict[str, torch.Tensor]:
    """Weights, moments and averages at the end of a run."""
    saved = read(checkpoints(output / "checkpoints")[0])
    assert saved.step == STEPS
    return {**saved.model(), **saved.optimizer()}


@pytest.mark.parametrize(
    ("task", "first", "then"), [("tuning", 2, 3), ("tuning", 3, 2), ("detecting", 2, 3)]
)
def test_a_run_goes_on_in_others(
    task: str, first: int, then: int, host: Host, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Two processes hold the states together, three have a copy each, and videos divide by none."""
    words: list[str] = request.getfixturevalue(task)
    whole, changed = tmp_path / "whole", tmp_path / "changed"
    assert cli.main([*words, "--output", str(whole)]) == 0
    given = [*words, "--output", str(changed)]
    ends = Accident("end", first - 1, STOPPED - 1)
    run = host.start(first, TARGET, words_of([*given, *LAYOUTS[first]], ends), tmp_path / "first")
    assert f"stopped by SIGTERM with {STOPPED} of {STEPS} steps" in run.finish(None)
    said = host.start(then, TARGET, words_of([*given, *LAYOUTS[then]]), tmp_path / "then").finish()
    assert f"resumed from {changed}/checkpoints/step-{STOPPED:08d}" in said
    pairs = list(zip(losses(whole), losses(changed), strict=True))
    assert len(pairs) == STEPS
    for expected, found in pairs:
        assert found == pytest.approx(expected, rel=1e-4)
    expected_tensors, found_tensors = tensors(whole), tensors(changed)
    assert expected_tensors.keys() == found_tensors.keys()
    assert any(name.startswith("ema.") for name in found_tensors) == (task == "tuning")
    for name, tensor in expected_tensors.items():
        torch.testing.assert_close(found_tensors[name], tensor, rtol=1e-2, atol=1e-3, msg=name)
    if task == "tuning":
        (one,), (other,) = History(whole).epochs, History(changed).epochs
        assert one.average is not None
        assert other.average is not None
        assert other.average.loss == pytest.approx(one.average.loss, rel=1e-3)


def test_exports_are_those_of_copies(host: Host, tiny_list: Path, tmp_path: Path) -> None:
    """Of two and four processes that share the states, and two that have a copy each; loaded
    without a name too many or too few."""
    words = ["pretrain", *options(data=tiny_list, epochs=1, warmup_epochs=0, depth=2)]
    exported = []
    for processes, more in ((2, ()), (2, LAYOUTS[2]), (4, LAYOUTS[4])):
        output = tmp_path / str(len(exported))
        given = words_of([*words, "--output", str(output), *more])
        said = host.start(processes, TARGET, given, output.with_suffix(".log")).finish()
        assert ("states sharded over 2 processes" in said) == bool(more)
        file = output / "exported.safetensors"
        assert cli.main(["convert", str(output), str(file), "--to", "ours"]) == 0
        weights = read_weights(file)
        model = MaskedAutoencoder(weights.config)
        model.load_state_dict(weights.state, strict=True)
        own = read(checkpoints(output / "checkpoints")[0]).model()
        assert own.keys() == weights.state.keys()
        assert all(torch.equal(own[name], tensor) for name, tensor in weights.state.items())
        exported.append(own)
    copies, *others = exported
    for shared in others:
        assert copies.keys() == shared.keys()
        for name, tensor in copies.items():
            assert (shared[name].dtype, shared[name].shape) == (tensor.dtype, tensor.shape)
            torch.testing.assert_close(shared[name], tensor, rtol=0, atol=1e-5, msg=name)
