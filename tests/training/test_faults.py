"""What must not lose a run: other processes, full disks, power cuts, folders that vanish."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fuzz.checkpoints import as_before
from tests.support.limits import largest_file
from tests.support.runs import altered, interrupt_after, losses, options, quiet
from videomae_fast import cli
from videomae_fast.data import Source
from videomae_fast.data.errors import OutputError
from videomae_fast.data.lock import FolderLock
from videomae_fast.errors import UsageError
from videomae_fast.recipes import PretrainConfig
from videomae_fast.training import pretrain
from videomae_fast.training.checkpoint import checkpoints, folder_name, read, save
from videomae_fast.training.errors import CheckpointError, NonFiniteError
from videomae_fast.training.step import TrainStep

Make = Callable[..., PretrainConfig]


def test_a_second_run_in_the_folder_is_refused(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def second() -> None:
        with pytest.raises(UsageError) as caught:
            pretrain(tiny(), output=tmp_path, log=quiet)
        said.append(str(caught.value))

    interrupt_after(monkeypatch, 3, second)
    pretrain(tiny(), output=tmp_path, log=quiet)
    assert said[0].startswith(f"{tmp_path}: another process pre-trains here (process ")
    assert len(losses(tmp_path)) == 8
    assert not (tmp_path / ".lock").exists()


def test_a_mistake_leaves_no_folder(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        pretrain(
            tiny(recompute=True, activation_checkpointing=True), output=tmp_path / "run", log=quiet
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("how", ["removed", "moved", "taken over", "metrics", "report"])
def test_an_output_folder_that_vanishes_ends_the_run_with_an_error(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    output = tmp_path / "run"
    names = {"metrics": "metrics.jsonl", "report": "bad_files.rank0.jsonl"}
    expected = re.escape(names.get(how, str(output)))

    def vanish() -> None:
        if how == "removed":
            shutil.rmtree(output)
        elif how == "moved":
            output.rename(tmp_path / "moved")
        elif how == "taken over":
            (output / ".lock").unlink()
            FolderLock(output, "pre-trains")
        else:
            (output / names[how]).rename(output / "mine")

    interrupt_after(monkeypatch, 3, vanish)
    with pytest.raises(OutputError, match=rf"{expected}: was removed, moved"):
        pretrain(tiny(), output=output, log=quiet)
    if how in ("removed", "moved"):
        assert not output.exists()


@pytest.mark.parametrize("name", ["metrics.jsonl", "bad_files.rank0.jsonl"])
@pytest.mark.parametrize("damage", [b"\0" * 500 + b"\n" + b"\0" * 9, b'\xff{"step": 1}\n[[[\n'])
def test_damage_behind_the_checkpoints_lines_blocks_no_resume(
    tiny: Make, tmp_path: Path, broken_list: Path, name: str, damage: bytes
) -> None:
    config = tiny(checkpoint_every=4, data=(Source(broken_list),))
    pretrain(config, output=tmp_path, log=quiet)
    expected, bad = losses(tmp_path), (tmp_path / "bad_files.rank0.jsonl").read_text()
    shutil.rmtree(tmp_path / "checkpoints" / folder_name(8))
    with (tmp_path / name).open("ab") as file:
        file.write(damage)
    said: list[str] = []
    pretrain(config, output=tmp_path, log=said.append)
    assert losses(tmp_path) == expected
    assert (tmp_path / "bad_files.rank0.jsonl").read_text() == bad
    aside = tmp_path / f"{name}.damaged"
    assert f"damaged lines behind step 4 are left out; as it was: {aside}" in said
    assert aside.read_bytes().endswith(damage)


@pytest.mark.parametrize("room", [0, 400])
def test_a_full_disk_at_the_start_names_the_file(
    tiny: Make, tmp_path: Path, tiny_list: Path, room: int
) -> None:
    with largest_file(room), pytest.raises(OutputError) as caught:
        pretrain(tiny(), output=tmp_path, log=quiet)
    name = ".lock" if room == 0 else "config.json"
    assert str(caught.value).startswith(f"{tmp_path / name}: can't be written: ")


def test_a_full_disk_on_the_way_names_the_file_and_the_run_goes_on(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(checkpoint_every=2)
    pretrain(config, output=tmp_path / "whole", log=quiet)
    path = tmp_path / "run" / "metrics.jsonl"
    with monkeypatch.context() as patched, ExitStack() as limits:
        interrupt_after(
            patched, 3, lambda: limits.enter_context(largest_file(path.stat().st_size + 50))
        )
        with pytest.raises(OutputError, match=rf"{path}: can't be written: "):
            pretrain(config, output=tmp_path / "run", log=quiet)
    assert path.read_text().count("\n") == 2
    assert path.read_text().endswith("}\n")
    pretrain(config, output=tmp_path / "run", log=quiet)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("/dev/null/x", "--output /dev/null/x: /dev/null is no folder"),
        ("/dev/null/x/y", "--output /dev/null/x/y: /dev/null is no folder"),
        ("/proc/x", "/proc/x/.lock: can't be written: No such file or directory"),
    ],
)
def test_an_output_that_cannot_be_is_told_in_a_sentence(
    tiny_list: Path, capsys: pytest.CaptureFixture[str], output: str, message: str
) -> None:
    code = cli.main(["pretrain", *options(data=tiny_list), "--output", output])
    said = capsys.readouterr().err
    assert code in (1, 2)
    assert message in said
    assert said.count("\n") == 1


def test_a_folder_of_checkpoints_that_is_a_file_is_told_before_the_first_step(
    tiny: Make, tmp_path: Path
) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(OutputError, match="checkpoints: can't be made: File exists"):
        pretrain(tiny(), output=tmp_path, log=quiet)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_checkpoints_of_the_format_before_go_on(tiny: Make, tmp_path: Path) -> None:
    config = tiny(checkpoint_every=4)
    pretrain(config, output=tmp_path, log=quiet)
    expected = losses(tmp_path)
    last, half = (tmp_path / "checkpoints" / folder_name(step) for step in (8, 4))
    weights = read(last).model()
    shutil.rmtree(last)
    as_before(half)
    former = json.loads((half / "state.json").read_text())
    assert former["config"]["base_lr"] == 0.2  # in one level
    with pytest.raises(CheckpointError, match=r"optim\.base_lr was 0\.2 and is 0\.3"):
        pretrain(altered(config, base_lr=0.3), output=tmp_path, log=quiet)
    pretrain(config, output=tmp_path, log=quiet)
    assert losses(tmp_path) == expected
    again = read(last)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in again.model().items())
    assert again.state["config"]["optim"]["base_lr"] == 0.2


def damaged(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> None:
    """Writes a checkpoint anew, whole, with other tensors in it."""
    saved = read(folder)
    model, optimizer = dict(saved.model()), dict(saved.optimizer())
    model, optimizer = ({k: v.clone() for k, v in each.items()} for each in (model, optimizer))
    change(model, optimizer)
    save(folder, model, optimizer, saved.state)


@pytest.mark.parametrize("part", ["model", "optimizer"])
def test_a_checkpoint_with_nan_is_refused_by_the_weights_name(
    tiny: Make, tmp_path: Path, part: str
) -> None:
    name = "encoder.blocks.0.mlp.fc1.weight"

    def spoil(model: dict[str, torch.Tensor], optimizer: dict[str, torch.Tensor]) -> None:
        tensor = model[name] if part == "model" else optimizer[f"exp_avg.{name}"]
        tensor.view(-1)[3] = float("nan")

    result = pretrain(tiny(epochs=2), output=tmp_path, log=quiet)
    damaged(result.checkpoint, spoil)
    with pytest.raises(CheckpointError) as caught:
        pretrain(tiny(epochs=4), output=tmp_path, log=quiet)
    assert "written with values that are not finite" in str(caught.value)
    assert f"{name} (1 of " in str(caught.value)


def test_a_weight_that_became_nan_is_named_rather_than_the_learning_rate(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, count = TrainStep.forward_backward, [0]

    def poisoned(self: TrainStep, *args: Any, **kwargs: Any) -> None:
        if count[0] == 3:
            weight = self.model.encoder.blocks[0].mlp.fc1.weight
            with torch.no_grad():
                weight.view(-1)[5] = float("inf")
        count[0] += 1
        forward(self, *args, **kwargs)

    monkeypatch.setattr(TrainStep, "forward_backward", poisoned)
    with pytest.raises(NonFiniteError, match="step 3: loss nan") as caught:
        pretrain(tiny(), output=tmp_path, log=quiet)
    said = str(caught.value)
    assert "weights were not finite before this step" in said
    assert "encoder.blocks.0.mlp.fc1.weight (1 of " in said
    assert "base_lr" not in said


def test_going_back_puts_later_checkpoints_aside(tiny: Make, tmp_path: Path) -> None:
    config = tiny(checkpoint_every=2)
    pretrain(config, output=tmp_path, log=quiet)
    expected = losses(tmp_path)
    said: list[str] = []
    back = tmp_path / "checkpoints" / folder_name(4)
    pretrain(tiny(checkpoint_every=2, steps=6), output=tmp_path, resume=str(back), log=said.append)
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == [
        "step-00000006",
        "step-00000004",
    ]
    assert losses(tmp_path)[:4] == expected[:4]
    assert [step for step, *_ in losses(tmp_path)] == list(range(6))
    assert json.loads((tmp_path / "config.json").read_text())["schedule"]["steps"] == 6
    assert [path.name for path in checkpoints(tmp_path / "superseded")] == [
        "step-00000008",
        "step-00000006",
    ]
    later, now = tmp_path / "checkpoints" / folder_name(8), tmp_path / "superseded"
    assert f"{later} is later than step 4, and is now {now / later.name}" in said
    pretrain(tiny(checkpoint_every=2), output=tmp_path, resume=str(back), log=quiet)
    assert sorted(path.name for path in now.iterdir()) == [
        "step-00000006",
        "step-00000006~1",
        "step-00000008",
    ]
    assert losses(tmp_path) == expected
