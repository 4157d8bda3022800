"""Folders that are whole or not there, also when the disk fills up."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fuzz import checkpoints as fuzz_checkpoints
from tests.support.limits import largest_file
from videomae_fast.training import checkpoint
from videomae_fast.training.checkpoint import Saved, newest, read, save
from videomae_fast.training.checkpoint import folder as files
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
    with (
        largest_file(1 << 16),
        pytest.raises(CheckpointError, match=r"can't write checkpoint .*step-00000002.*MB"),
    ):
        write(tmp_path, 2, keep=1)
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
        owner = {"fsync": os, "rename": Path, "_write_text": files}[failing]
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


def test_bits_of_the_json(tmp_path: Path) -> None:
    assert list(fuzz_checkpoints.run(400, 0, tmp_path)) == []


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object], *, checksum: bool) -> None:
    """Changes ``state.json``, with a right checksum, or as the format before had none."""
    path = folder / "state.json"
    state = json.loads(path.read_text())
    change(state)
    if checksum:
        digest = hashlib.sha256(json.dumps(state).encode()).hexdigest()
        (folder / "state.json.sha256").write_text(f"{digest}  state.json\n")
    else:
        state["format"] = 1
        (folder / "state.json.sha256").unlink()
    path.write_text(json.dumps(state))


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state["files"].clear(), "files are none, not model.safetensors and"),
        (lambda state: state["files"].pop("optimizer.safetensors"), "files are model.safetensors"),
        (lambda state: state["files"]["model.safetensors"].pop("crc32"), "a size and a CRC are"),
        (lambda state: state.update(step=3), "its step is 3, and the folder is named step-0000000"),
        (lambda state: state.update(step="2"), "step is '2'"),
        (lambda state: state.update(step=True), "step is True"),
        (lambda state: state.update(files=[]), "files are none"),
        (lambda state: state.pop("step"), "KeyError"),
    ],
)
def test_a_damaged_state_falls_back_by_name(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str, checksum: bool
) -> None:
    write(tmp_path, 1)
    folder = write(tmp_path, 2)
    rewrite(folder, change, checksum=checksum)
    said: list[str] = []
    saved = newest(tmp_path, said.append)
    assert saved is not None
    assert saved.step == 1
    assert len(said) == 1
    assert said[0].startswith(f"ignored: checkpoint {folder} is not whole: ")
    assert message in said[0]


@pytest.mark.parametrize("text", ["[" * 100_000, "\0" * 300, "3", '{"step": ' + "9" * 5000 + "}"])
def test_a_state_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    folder = write(tmp_path, 1)
    (folder / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"not whole: state.json is not what state.json.sha"):
        read(folder)
    (folder / "state.json.sha256").unlink()
    with pytest.raises(CheckpointError, match=r"step-00000001 is not whole: state.json can't be"):
        read(folder)


def test_the_checksum_is_one_for_sha256sum(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    digest = hashlib.sha256((folder / "state.json").read_bytes()).hexdigest()
    assert (folder / "state.json.sha256").read_text() == f"{digest}  state.json\n"
    (folder / "state.json.sha256").unlink()
    with pytest.raises(CheckpointError, match=r"not whole: state.json.sha256 is missing"):
        read(folder)


def test_the_format_before_is_still_read(tmp_path: Path) -> None:
    folder = write(tmp_path, 7)
    rewrite(folder, lambda _: None, checksum=False)
    assert read(folder).step == 7
    assert found(tmp_path).step == 7
    rewrite(write(tmp_path, 8), lambda state: state.update(format=4), checksum=True)
    with pytest.raises(CheckpointError, match="has format 4, this version reads 1, 2 and 3"):
        read(tmp_path / "step-00000008")


@pytest.mark.parametrize("what", ["file", "link", "folder"])
@pytest.mark.parametrize(
    "name",
    [
        ".partial-step-00000002",
        ".partial-else",
        "step-00000002",
        ".partial-replaced-step-00000002",
        ".partial-old-step-00000001",
    ],
)
def test_what_stands_in_the_way_blocks_nothing(tmp_path: Path, name: str, what: str) -> None:
    write(tmp_path, 1)
    if what == "file":
        (tmp_path / name).write_text("stray")
    elif what == "link":
        (tmp_path / name).symlink_to(tmp_path / "nowhere")
    else:
        (tmp_path / name / "deep").mkdir(parents=True)
    write(tmp_path, 2, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]
    assert found(tmp_path).step == 2


def test_what_cannot_be_removed_is_no_checkpoint_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader on a network's file system keeps a folder from being empty."""
    write(tmp_path, 1)

    def busy(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", busy)
        write(tmp_path, 2, keep=1)
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["step-00000002"]
    write(tmp_path, 3, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


def test_an_output_folder_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        write(tmp_path / "gone" / "checkpoints", 1)
    assert not list(tmp_path.iterdir())
