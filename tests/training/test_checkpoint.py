"""Folders that are whole or not there, also when the disk fills up."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from videomae_fast.training import checkpoint
from videomae_fast.training.checkpoint import Saved, newest, read, save
from videomae_fast.training.errors import CheckpointError


def write(folder: Path, step: int, *, keep: int | None = None) -> Path:
    weights = {"w": torch.full((256, 256), float(step))}
    state: dict[str, Any] = {"step": step, "model": {}, "model_options": {}}
    return save(folder / checkpoint.folder_name(step), weights, {"exp_avg.w": weights["w"]}, state,
                keep=keep)  # fmt: skip


def found(folder: Path) -> Saved:
    saved = newest(folder, lambda _: None)
    assert saved is not None
    return saved


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        write(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000100"]
    saved = found(tmp_path)
    assert saved.step == 100
    assert saved.model()["w"][0, 0] == 100
    assert saved.optimizer()["exp_avg.w"][0, 0] == 100
    assert saved.state["versions"]["torch"] == torch.__version__


def test_a_full_disk_leaves_older_checkpoints_whole(tmp_path: Path) -> None:
    write(tmp_path, 1, keep=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow beyond 64 KiB: the write itself fails, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(CheckpointError, match=r"can't write checkpoint .*step-00000002.*MB"):
            write(tmp_path, 2, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert found(tmp_path).step == 1
    write(tmp_path, 2, keep=1)
    assert found(tmp_path).step == 2


@pytest.mark.parametrize("failing", ["fsync", "rename", "_write_text"])
def test_no_space_at_any_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    write(tmp_path, 1, keep=1)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        owner = {"fsync": os, "rename": Path, "_write_text": checkpoint}[failing]
        patched.setattr(owner, failing, full)
        with pytest.raises(CheckpointError, match="No space left on device"):
            write(tmp_path, 2, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert found(tmp_path).step == 1


def test_a_killed_write_is_not_a_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2).rename(tmp_path / ".partial-step-00000002")
    assert found(tmp_path).step == 1
    write(tmp_path, 3)
    assert not list(tmp_path.glob(".partial*"))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path, 1)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"not whole.*{name}"):
        read(folder)


def test_one_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    (folder / "model.safetensors").write_bytes(b"")
    assert read(write(tmp_path, 1)).step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_failed_replacement_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rename = write(tmp_path, 1), Path.rename

    def full(self: Path, target: Path) -> Path:
        if self.name == f".partial-{folder.name}":
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", full)
        with pytest.raises(CheckpointError, match="No space left"):
            write(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert found(tmp_path).step == 1
