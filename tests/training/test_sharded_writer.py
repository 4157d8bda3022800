"""Checkpoints that are written behind a run's back, in a group of one process."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from videomae_fast.errors import CheckpointError
from videomae_fast.training.checkpoint import checkpoints, read, sharded
from videomae_fast.training.checkpoint.sharded import ShardedWriter
from videomae_fast.training.parallel.world import World

STATE: dict[str, Any] = {"model": {}, "model_options": {}, "config": {}, "data": {}, "init": None}
MOMENTS = ("exp_avg.weight", "exp_avg_sq.weight", "step.weight")


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[ShardedWriter]:
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        control = dist.new_group(backend="gloo")
        yield ShardedWriter(World(0, 1, torch.device("cpu"), control, store))
    finally:
        dist.destroy_process_group()


def tensors(value: float) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    moments = {name: torch.full((3, 2), value) for name in MOMENTS[:2]}
    return {"weight": torch.full((3, 2), value)}, {**moments, MOMENTS[2]: torch.tensor(value)}


def start(writer: ShardedWriter, parent: Path, step: int, keep: int | None = 2) -> list[Tensor]:
    model, moments = tensors(step)
    folder = parent / f"step-{step:08d}"
    writer.start(folder, model, moments, {**STATE, "step": step}, keep=keep)
    return [*model.values(), *moments.values()]


def test_it_holds_what_was_there_when_it_began(writer: ShardedWriter, tmp_path: Path) -> None:
    parent = tmp_path / "checkpoints"
    for step in (1, 2, 3):
        for tensor in start(writer, parent, step):
            tensor.fill_(-1)
    writer.wait()
    folders = checkpoints(parent)
    assert [folder.name for folder in folders] == ["step-00000003", "step-00000002"]
    assert sorted(path.name for path in parent.iterdir()) == sorted(f.name for f in folders)
    for folder in folders:
        saved = read(folder)
        assert saved.state["format"] == 3
        model, moments = tensors(saved.step)
        for found, expected in ((saved.model(), model), (saved.optimizer(), moments)):
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), OSError()])
def test_a_full_disk_leaves_the_older_ones(
    writer: ShardedWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    parent = tmp_path / "checkpoints"
    start(writer, parent, 1)
    writer.wait()

    def full(*_: Any) -> None:
        raise error

    for part in ("write_model", "commit", "fingerprint"):
        with monkeypatch.context() as patched:
            patched.setattr(sharded, part, full)
            start(writer, parent, 2)
            with pytest.raises(CheckpointError, match=r"can't write checkpoint .*step-00000002"):
                start(writer, parent, 3)  # is told of the one before it
        assert [folder.name for folder in parent.iterdir()] == ["step-00000001"]
        read(parent / "step-00000001")
    start(writer, parent, 2)
    writer.wait()
    assert read(parent / "step-00000002").step == 2


def test_a_folder_that_cannot_be_made_is_an_error(writer: ShardedWriter, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CheckpointError, match="can't write checkpoint"):
        start(writer, tmp_path / "file" / "checkpoints", 1)


@pytest.mark.parametrize("damage", ["bit", "cut", "gone", "more"])
def test_damage_is_named(writer: ShardedWriter, tmp_path: Path, damage: str) -> None:
    start(writer, tmp_path / "checkpoints", 1)
    writer.wait()
    folder = tmp_path / "checkpoints" / "step-00000001"
    (shard,) = (folder / "optimizer").iterdir()
    content = shard.read_bytes()
    if damage == "gone":
        shard.unlink()
    else:
        changed = {"bit": content[:-1] + b"\x01", "cut": content[:-4], "more": content + b"0"}
        shard.write_bytes(changed[damage])
    with pytest.raises(CheckpointError, match=f"is not whole: .*{shard.name}"):
        read(folder)
