"""Who holds a folder, and when a file that was left behind is taken over."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.limits import largest_file
from videomae_fast.data.errors import OutputError
from videomae_fast.data.lock import FolderLock, Owner
from videomae_fast.errors import UsageError

HOLD = """
import sys, time
from pathlib import Path
from videomae_fast.data.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]), "pre-trains")
print("held", flush=True)
time.sleep(600)
"""


def left_by(folder: Path, **changed: Any) -> Owner:
    """Leaves the lock's file of a process that was killed."""
    owner = replace(Owner.this("pre-trains"), pid=2**22 + 1, started="1", **changed)
    (folder / ".lock").write_text(json.dumps(asdict(owner)))
    return owner


def test_another_process_is_named_and_its_end_frees_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match="another process pre-trains here") as caught:
            FolderLock(folder, "prepares files")
        assert f"process {holder.pid} on {os.uname().nodename}, since 20" in str(caught.value)
    finally:
        holder.kill()
        holder.wait()
    assert (folder / ".lock").exists()
    FolderLock(folder, "pre-trains").close()
    assert not list(folder.iterdir())


def test_one_process_holds_it_once(tmp_path: Path) -> None:
    with FolderLock(tmp_path, "pre-trains") as lock:
        with pytest.raises(UsageError, match=f"process {os.getpid()} on"):
            FolderLock(tmp_path, "pre-trains")
        lock.check()
    lock.close()  # twice does no harm
    FolderLock(tmp_path, "pre-trains").close()


@pytest.mark.parametrize("flock", [True, False])
def test_a_killed_one_of_this_machine_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flock: bool
) -> None:
    if not flock:
        monkeypatch.setattr(fcntl, "flock", _no_locks)
    left_by(tmp_path)
    FolderLock(tmp_path, "pre-trains").close()
    left_by(tmp_path, boot="before the machine was started anew")
    FolderLock(tmp_path, "pre-trains").close()
    (tmp_path / ".lock").write_bytes(b"\0" * 80)  # a power cut
    FolderLock(tmp_path, "pre-trains").close()


def test_a_container_of_this_machine_is_told_from_another_machine(tmp_path: Path) -> None:
    left_by(tmp_path, host="container-1")
    FolderLock(tmp_path, "pre-trains").close()
    left_by(tmp_path, host="gpu-7", boot="another")
    with pytest.raises(UsageError) as caught:
        FolderLock(tmp_path, "pre-trains")
    said = str(caught.value)
    assert f"process {2**22 + 1} on gpu-7" in said
    assert f"If it has ended, remove {tmp_path}/.lock and start again" in said
    (tmp_path / ".lock").unlink()
    FolderLock(tmp_path, "pre-trains").close()


def test_without_the_kernels_locks_a_living_owner_is_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", _no_locks)
    with (
        FolderLock(tmp_path, "pre-trains"),
        pytest.raises(UsageError, match="another process pre-trains here"),
    ):
        FolderLock(tmp_path, "pre-trains")
    FolderLock(tmp_path, "pre-trains").close()


def _no_locks(*_: object) -> None:
    raise OSError(38, "Function not implemented")


@pytest.mark.parametrize("how", ["removed", "taken over"])
def test_a_folder_that_is_no_longer_ones_own_is_noticed(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "run"
    lock = FolderLock(folder, "pre-trains")
    if how == "removed":
        folder.rename(tmp_path / "gone")
    else:
        (folder / ".lock").unlink()
        other = FolderLock(folder, "pre-trains")
    with pytest.raises(OutputError, match=r"run: was removed, moved or given to another process"):
        lock.check()
    lock.close()
    if how == "taken over":
        other.check()  # closing the first one left it alone
        other.close()


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(
        OutputError, match=r"^/dev/null/x/\.lock: can't be written: Not a directory"
    ):
        FolderLock(Path("/dev/null/x"), "pre-trains")
    with (
        largest_file(0),
        pytest.raises(OutputError, match=r"\.lock: can't be written: (No space|File too large)"),
    ):
        FolderLock(tmp_path, "pre-trains")
    assert not list(tmp_path.iterdir())
