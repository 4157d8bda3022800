"""Stores that are Lance data sets: the same seam as tar files, read and written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.stores import LABELS, flip_byte, write_store
from videomae_fast import cli
from videomae_fast.data import DecodeError, Source
from videomae_fast.data.lists.sources import load_sources
from videomae_fast.data.store import lance as seam
from videomae_fast.data.store.base import StoredClipError, StoreError
from videomae_fast.data.store.filling import Filling, export_store, fill_store
from videomae_fast.data.store.incoming import ListClips, look
from videomae_fast.data.store.lance_writing import LanceWriter
from videomae_fast.data.store.opening import StoredClip, is_store, open_store
from videomae_fast.errors import BackendUnavailableError, UsageError, VideoMAEFastError

lance: Any = pytest.importorskip("lance")


@pytest.fixture(scope="module")
def whole(labelled: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores") / "clips"
    return write_store(folder, labelled, format="labels", root=clips, kind="lance")


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "clips")
    return tmp_path / "clips"


def test_it_says_what_a_tar_store_says(
    whole: Path, labelled: Path, clips: Path, tmp_path: Path
) -> None:
    other = open_store(write_store(tmp_path / "tar", labelled, format="labels", root=clips))
    store = open_store(whole)
    assert len(store) == len(other) == 6
    for row in (5, 0, 3):
        assert store.row(row) == other.row(row)
        assert store.read(row) == other.read(row)
        assert store.label(row) == LABELS[row]
        clip = StoredClip(str(whole), 1, row)
        assert clip.load().content == other.read(row)
        assert str(clip) == f"clip{row}.mp4 ({whole} row {row})"
    assert store.labels.tolist() == other.labels.tolist() == LABELS
    assert store.containing(b"p3.").tolist() == other.containing(b"p3.").tolist()
    for row in (-1, 6):
        with pytest.raises(IndexError, match=f"row {row} of .*clips, which has 6"):
            store.read(row)
    (loaded,) = load_sources([Source(whole, excludes=("p0",))])
    assert loaded.entries.label.tolist() == LABELS[1:]
    assert loaded.digest() == store.digest() != other.digest()


def test_versions_stay(store: Path, labelled: Path, clips: Path) -> None:
    write_store(store, labelled, format="labels", root=clips, kind="lance")
    one, two = open_store(store, 1), open_store(store)
    assert (one.version, len(one), two.version, len(two)) == (1, 6, 2, 12)
    assert two.row(7).name == "000000007.mp4"
    assert two.read(7) == one.read(1)
    assert one.digest() != two.digest()
    with pytest.raises(StoreError, match="can't be opened at version 9"):
        open_store(store, 9)


def test_by_the_commands(
    labelled: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Import, append of tar files, verify and export, and a store of another kind of it."""
    store, words = tmp_path / "clips", ["--root", str(clips), "--format", "labels"]
    command = ["store", "import", str(store), str(labelled), "--kind", "lance", *words]
    assert cli.main([*command, "--workers", "1"]) == 0
    tar = write_store(tmp_path / "tar", labelled, format="labels", root=clips)
    appended = ["store", "append", str(store), str(next(tar.rglob("*.tar"))), "--workers", "1"]
    assert cli.main(appended) == 0
    assert cli.main(["store", "verify", str(store), "--workers", "1"]) == 0
    assert f"{store} is whole: 12 clips of version 2" in capsys.readouterr().out
    assert cli.main(["store", "export", str(store), str(tmp_path / "out")]) == 0
    back, out = open_store(store), open_store(tmp_path / "out")
    assert out.labels.tolist() == back.labels.tolist() == LABELS * 2
    assert [out.read(row) for row in range(12)] == [back.read(row) for row in range(12)]
    again = fill_store(tmp_path / "copy", [tmp_path / "out"], Filling(kind="lance"), new=True)
    assert again.rows == 12
    assert open_store(tmp_path / "copy").read(11) == back.read(11)
    with pytest.raises(UsageError, match="is there already"):
        fill_store(store, [labelled], Filling(kind="lance"), new=True)


def test_a_damaged_clip_is_named(store: Path, tmp_path: Path) -> None:
    """Flipped within its bytes, found by its checksum; a missing file by whatever Lance says."""
    content = open_store(store).read(2)
    (file,) = [one for one in (store / "data").rglob("*") if one.is_file()]
    place = file.read_bytes().index(content)
    flip_byte(file, place + len(content) // 2)
    reason = "its bytes are not those that were written"
    with pytest.raises(StoredClipError, match=f"row 2 .clip2.mp4.: {reason}"):
        open_store(store).read(2)
    open_store(store).read(1)
    assert cli.main(["store", "verify", str(store), "--workers", "1"]) == 1
    done = export_store(open_store(store), tmp_path / "out", Filling())
    assert (done.rows, done.bad) == (5, 1)
    opened = open_store(store)
    file.unlink()
    with pytest.raises(DecodeError, match="can't be read"):
        opened.read(3)


def test_another_data_set_is_no_store(tmp_path: Path) -> None:
    import pyarrow

    lance.write_dataset(pyarrow.table({"x": [1]}), str(tmp_path / "x"))
    assert is_store(tmp_path / "x")
    with pytest.raises(StoreError, match="a Lance data set without clip, crc32"):
        open_store(tmp_path / "x")
    (tmp_path / "y" / "_versions").mkdir(parents=True)
    with pytest.raises(StoreError, match="can't be opened"):
        open_store(tmp_path / "y")


def test_an_abandoned_write_leaves_nothing(store: Path, clip_list: Path, tmp_path: Path) -> None:
    for folder in (store, tmp_path / "new"):
        clip = ListClips(clip_list, "pretrain", None)[0]
        assert clip.video is not None
        with LanceWriter(folder) as writer:  # never committed
            writer.add(clip, look(clip), clip.video.load().content)
            writer._flush()
    assert (open_store(store).version, len(open_store(store))) == (1, 6)
    assert not (tmp_path / "new").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.support import stores
from videomae_fast.data.store import lance_writing
def kill(self):
    self._flush()
    os.kill(os.getpid(), signal.SIGKILL)
lance_writing.LanceWriter.commit = kill
stores.write_store(Path(sys.argv[1]), Path(sys.argv[2]), kind="lance")
"""


def test_a_kill_leaves_the_version_before(store: Path, clip_list: Path) -> None:
    root = Path(__file__).parents[3]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(store), str(clip_list)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert killed.returncode == -signal.SIGKILL
    before = open_store(store)
    assert (before.version, len(before)) == (1, 6)
    write_store(store, clip_list, kind="lance")
    assert (open_store(store).version, len(open_store(store))) == (2, 12)


def test_a_full_disk(store: Path, clip_list: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(lance, "write_dataset", full)
    with pytest.raises(VideoMAEFastError, match=r"No space left.*The store is as it was"):
        write_store(store, clip_list, kind="lance")
    assert len(open_store(store)) == 6


def test_without_the_package(
    store: Path, tmp_path: Path, clip_list: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(seam, "find_spec", lambda _: None)
    with pytest.raises(BackendUnavailableError, match="Lance is not installed: pip install pylan"):
        open_store(store)
    command = ["store", "import", str(tmp_path / "new"), str(clip_list), "--kind", "lance"]
    assert cli.main(command) == 1
    assert "pip install pylance" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_it_is_imported_when_it_is_needed() -> None:
    """A loader process is forked from one that has imported the readers, and Lance has threads."""
    code = "import sys, videomae_fast.data.loader.ahead; print('lance' in sys.modules)"
    root = Path(__file__).parents[3]
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "False"


def test_bad_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(f"{tmp_path}/gone.mp4 0 -1\n")
    with pytest.raises(VideoMAEFastError, match="none of 1 clips can be stored"):
        fill_store(tmp_path / "s", [tmp_path / "train.csv"], Filling(kind="lance"), new=True)
    assert not (tmp_path / "s").exists()
    told = Path(f"{tmp_path / 's'}.bad_files.jsonl").read_text()
    assert json.loads(told)["reason"] == "no such file"
