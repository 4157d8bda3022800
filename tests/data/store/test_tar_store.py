"""Tar files with an index: what is written is read, WebDataset reads it too, damage is named."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
import tracemalloc
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from time import process_time

import numpy as np
import pytest

from tests.support.stores import LABELS, flip_byte, write_store
from tests.support.videos import write_video
from videomae_fast import cli
from videomae_fast.data import DecodeError, ListError, Source
from videomae_fast.data.lists.sources import load_sources
from videomae_fast.data.order import Draw
from videomae_fast.data.reading import ClipRequest, ReadSettings, read
from videomae_fast.data.store.base import Row, StoredClipError, StoreError
from videomae_fast.data.store.filling import Filling, export_store, fill_store
from videomae_fast.data.store.head import HEAD
from videomae_fast.data.store.index import FILES, ROW, Index, IndexBuilder
from videomae_fast.data.store.opening import StoredClip, is_store, open_store
from videomae_fast.data.store.tar import TarStore
from videomae_fast.data.store.tar_writing import TarWriter
from videomae_fast.errors import UsageError, VideoMAEFastError


@pytest.fixture(scope="module")
def whole(labelled: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores") / "clips"
    return write_store(folder, labelled, format="labels", root=clips, tar_bytes=12_000)


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    """One that may be damaged."""
    shutil.copytree(whole, tmp_path / "clips")
    return tmp_path / "clips"


def tars(store: Path) -> list[Path]:
    return sorted(store.rglob("*.tar"))


def test_rows_are_the_files(whole: Path, clips: Path) -> None:
    store = open_store(whole)
    assert (len(store), store.version) == (6, 1)
    assert len(tars(whole)) > 1
    for number in (5, 0, 3):
        content = (clips / f"clip{number}.mp4").read_bytes()
        assert store.read(number) == content
        row = store.row(number)
        assert row == Row(
            name=f"{number:09d}.mp4",
            source=f"clip{number}.mp4",
            size=len(content),
            crc32=zlib.crc32(content),
            sha256=sha256(content).digest(),
            frames=20 + 14 * number,
            rate=25.0,
            longest_gop=12,
            label=LABELS[number],
        )
    assert store.labels.tolist() == LABELS
    for row in (-1, 6):
        with pytest.raises(IndexError, match=f"row {row} of .*clips, which has 6"):
            store.read(row)
    store.close()
    assert store.read(1) == (clips / "clip1.mp4").read_bytes()  # its files are opened anew


def test_another_process_reads_the_same_version(whole: Path) -> None:
    clip = StoredClip(str(whole), 1, 4)
    assert pickle.loads(pickle.dumps(clip)) == clip
    assert clip.load().content == open_store(whole, 1).read(4)
    assert str(clip) == f"clip4.mp4 ({whole} row 4)"


def test_a_device_s_decoder_gets_the_file(whole: Path, clips: Path) -> None:
    """As it is; and frames or clips are those of the file, too."""
    for form in ("encoded", "frames", "clips"):
        found = []
        for file in (clips / "clip4.mp4", StoredClip(str(whole), 1, 4)):
            request = ClipRequest(Draw(0, 0, 0, 0, 0), file, whole, 4, -1, 0, -1, "", 2, (7,) * 9)
            codecs = frozenset({"h264"})
            settings = ReadSettings(8, (64, 64), 2, "pyav", hand_over=form, codecs=codecs)  # type: ignore[arg-type]
            found.append(read(request, settings))
        assert [one.kind for one in found] == [form, form]
        np.testing.assert_array_equal(found[0].data, found[1].data)
        assert (found[0].ids, found[0].plans) == (found[1].ids, found[1].plans)
    assert request.name == f"clip4.mp4 ({whole} row 4)"


def test_webdataset_reads_the_tar_files(whole: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    samples = list(
        webdataset.WebDataset([str(tar) for tar in tars(whole)], shardshuffle=False).decode()
    )
    store = open_store(whole)
    assert [one["mp4"] for one in samples] == [store.read(row) for row in range(6)]
    assert [one["cls"] for one in samples] == LABELS
    about = samples[1]["json"]
    assert (about["source"], about["frames"], about["label"]) == ("clip1.mp4", 34, 0)
    assert about["sha256"] == store.row(1).sha256.hex()


def test_webdataset_s_tar_files_are_read(clips: Path, tmp_path: Path) -> None:
    """Indexed where they are, if that is in the store's folder; else copied. With labels, folders,
    members beside the videos, and several dots in names."""
    webdataset = pytest.importorskip("webdataset")
    folder = tmp_path / "shards"
    folder.mkdir()
    content = [(clips / f"clip{n}.mp4").read_bytes() for n in range(3)]
    with webdataset.TarWriter(str(folder / "a.tar")) as writer:
        writer.write({"__key__": "x/one", "mp4": content[0], "cls": 7})
        writer.write({"__key__": "x/two", "txt": "no video", "low.mp4": content[1],
                      "json": {"label": 5, "source": "y.mp4"}})  # fmt: skip
    with webdataset.TarWriter(str(tmp_path / "b.tar")) as writer:
        writer.write({"__key__": "three", "mkv": content[2]})
    paths = [folder / "a.tar", tmp_path / "b.tar"]
    done = fill_store(folder, paths, Filling(), new=True)
    assert (done.version, done.rows, done.bad) == (1, 3, 0)
    store = open_store(folder)
    assert [store.read(row) for row in range(3)] == content
    assert store.labels.tolist() == [7, 5, -1]
    sources = [store.row(row).source for row in range(3)]
    assert sources == ["a.tar/x/one.mp4", "y.mp4", "b.tar/three.mkv"]
    assert isinstance(store, TarStore)
    assert [store.where(row)[0] for row in range(3)] == ["a.tar", "a.tar", "part-00001/b.tar"]
    with pytest.raises(StoreError, match=r"has a\.tar already: leave .*a\.tar out, or rename it"):
        fill_store(folder, paths[:1], Filling(), new=False)


def test_import_append_verify_export(
    labelled: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the commands; a file that is no video, and one that is not there, are left out."""
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    mixed = tmp_path / "mixed.csv"
    mixed.write_text(f"{clips}/clip2.mp4 1\n{bad} 1\n{tmp_path}/gone.mp4 1\n")
    store, words = tmp_path / "clips", ["--format", "labels", "--workers", "1"]
    command = ["store", "import", str(store), str(labelled), *words, "--root", str(clips)]
    assert cli.main([*command, "--shuffle", "3"]) == 0
    assert "version 1" in capsys.readouterr().out
    assert cli.main(["store", "append", str(store), str(mixed), *words]) == 0
    out = capsys.readouterr().out
    assert f"bad clips  2 are left out: {store}.bad_files.jsonl" in out
    lines = [json.loads(line) for line in Path(f"{store}.bad_files.jsonl").read_text().splitlines()]
    assert [one["path"] for one in lines] == [str(bad), f"{tmp_path}/gone.mp4"]
    assert [one["place"] for one in lines] == [f"{mixed}:2", f"{mixed}:3"]
    assert lines[1]["reason"] == "no such file"
    assert cli.main(["store", "verify", str(store), "--workers", "1"]) == 0
    assert f"{store} is whole: 7 clips of version 2" in capsys.readouterr().out
    assert cli.main(["store", "export", str(store), str(tmp_path / "out"), "--version", "1"]) == 0
    one, two = open_store(store), open_store(tmp_path / "out")
    assert sorted(one.labels[:6].tolist()) == sorted(LABELS)
    assert one.labels[:6].tolist() != LABELS  # shuffled
    assert [two.row(row) for row in range(6)] == [one.row(row) for row in range(6)]
    assert [two.read(row) for row in range(6)] == [one.read(row) for row in range(6)]
    for words, message in (
        (["import", str(store), str(mixed)], "is there already: give another folder, or add"),
        (["append", str(tmp_path), str(mixed)], "is no store: videomae-fast store import makes"),
        (["export", str(store), str(store)], "is there already: give another folder"),
        (["verify", str(tmp_path)], "no store: there is no store.json in it"),
        (["verify", str(store), "--version", "3"], "has no version 3, but 1 to 2"),
        (["import", str(tmp_path / "n"), str(bad), str(mixed)], "one list, one store, or tar"),
        (["import", str(tmp_path / "n"), str(tmp_path / "gone.csv")], "no such list file"),
        (["import", str(tmp_path / "n"), str(clips)], "is a folder: make a list"),
        (["import", str(tmp_path / "n"), str(mixed), "--tar-gb", "0"], "--tar-gb must be more"),
        (["import", str(tmp_path / "n"), str(mixed), "--shuffle", "-1"], "--shuffle must be 0"),
        (["import", str(tmp_path / "n"), str(mixed), "--root", "x"], "--root x: no such folder"),
    ):
        capsys.readouterr()
        assert cli.main(["store", *words]) != 0
        assert message in capsys.readouterr().err, words
    assert not (tmp_path / "n" / HEAD).exists()


def test_a_store_of_nothing_is_none(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(f"{tmp_path}/gone.mp4 0 -1\n{tmp_path} 1 5\n")
    with pytest.raises(
        VideoMAEFastError, match=r"none of 2 clips can be stored; see .*no such file"
    ):
        fill_store(tmp_path / "s", [tmp_path / "train.csv"], Filling(), new=True)
    assert not (tmp_path / "s").exists()
    told = Path(f"{tmp_path / 's'}.bad_files.jsonl").read_text().splitlines()
    assert "folder of frames" in json.loads(told[1])["reason"]


def test_the_same_clips_give_the_same_bytes(
    whole: Path, labelled: Path, clips: Path, tmp_path: Path
) -> None:
    again = write_store(tmp_path / "s", labelled, format="labels", root=clips, tar_bytes=12_000)
    files = [one.relative_to(whole) for one in whole.rglob("*") if one.is_file()]
    assert len(files) > 5
    for file in files:
        assert (again / file).read_bytes() == (whole / file).read_bytes()


def test_parts_of_a_store(whole: Path) -> None:
    """Chosen by source as parts of a list are, with their own labels and rows."""
    (loaded,) = load_sources([Source(whole, contains="clip", excludes=("p0", "p5"))])
    assert len(loaded) == 4
    assert [loaded.entries[n].line for n in range(4)] == [1, 2, 3, 4]
    assert [loaded.entries[n].label for n in range(4)] == LABELS[1:5]
    assert loaded.entries.label.tolist() == LABELS[1:5]
    assert loaded.file(3) == StoredClip(str(whole), 1, 4)
    assert loaded.entries.place(3) == f"{whole} row 4"
    with pytest.raises(IndexError):
        loaded.entries[4]
    # Names within the store are no sources, nor is what lies over the border of both.
    for part in ("00000000", "mp4clip", ".mp4c"):
        assert not open_store(whole).containing(part.encode()).any()
    with pytest.raises(ListError, match="none of its 6 entries is kept by only='folders'"):
        load_sources([Source(whole, only="folders")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": "/"}, "root is of a list of files"),
        ({"name_pattern": "{}.png"}, "name_pattern is of a list"),
        ({"first_frame": 0}, "first_frame is of a list"),
        ({"version": 7}, "has no version 7, but 1 to 1"),
    ],
)
def test_options_that_a_store_has_no_use_for(
    whole: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(VideoMAEFastError, match=message):
        load_sources([Source(whole, **options)])  # type: ignore[arg-type]


def test_a_version_of_a_list(clip_list: Path) -> None:
    with pytest.raises(UsageError, match="version is of a store, and this is a list"):
        load_sources([Source(clip_list, version=1)])


def damaged_clip(store: Path) -> str:
    opened = open_store(store)
    assert isinstance(opened, TarStore)
    name, place = opened.where(2)
    flip_byte(store / name, place.offset + 9)
    return f"its bytes in {name} are not those that were written"


def cut_tar(store: Path) -> str:
    opened = open_store(store)
    assert isinstance(opened, TarStore)
    name, place = opened.where(2)
    os.truncate(store / name, place.offset + place.size - 1)
    return f"its file {name} is cut off"


def missing_tar(store: Path) -> str:
    opened = open_store(store)
    assert isinstance(opened, TarStore)
    name, _ = opened.where(2)
    (store / name).unlink()
    return f"its file {name} is missing"


@pytest.mark.parametrize("damage", [damaged_clip, cut_tar, missing_tar])
def test_a_damaged_clip_is_named(store: Path, damage: object) -> None:
    reason = damage(store)  # type: ignore[operator]
    opened = open_store(store)
    with pytest.raises(StoredClipError) as caught:
        opened.read(2)
    assert str(caught.value) == f"{store} row 2 (clip2.mp4): {reason}"
    assert caught.value.reason == reason
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), DecodeError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_verify_names_all_damage(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged_clip(store)
    flip_byte(store / "part-00001" / "labels.npy", -1)
    assert cli.main(["store", "verify", str(store), "--workers", "1"]) == 1
    told = capsys.readouterr()
    assert f"{store} row 2 (clip2.mp4): its bytes in" in told.out
    assert f"{store}/part-00001/labels.npy: has" in told.out
    assert f"{store} row 5: the store's index is damaged there" in told.out
    assert "4 things are wrong" in told.err  # the tar file, too


@pytest.mark.parametrize("what", FILES)
def test_every_byte_of_the_index_counts(store: Path, what: str) -> None:
    """Of a row that is damaged the others know nothing."""
    path = store / "part-00001" / f"{what}.npy"
    before, header = path.read_bytes(), np.load(path, mmap_mode="r").offset
    size = {"rows": ROW.itemsize, "labels": 4, "text": 22}[what]
    for place in range(header + size, header + 2 * size):  # row 1
        flip_byte(path, place)
        opened = open_store(store)
        with pytest.raises(StoredClipError, match="row 1: the store's index is damaged there"):
            opened.row(1)
        assert opened.row(0).source == "clip0.mp4"
        assert opened.row(2).source == "clip2.mp4"
        path.write_bytes(before)
    entries = load_sources([Source(store)])[0].entries
    flip_byte(path, header + size)
    entry = load_sources([Source(store)])[0].entries[1]
    assert (entry.line, entry.label) == (1, -1)
    assert "damaged index" in entry.path
    assert entries[0].path == "clip0.mp4"


@pytest.mark.parametrize("what", FILES)
@pytest.mark.parametrize("harm", ["cut", "gone", "another"])
def test_a_damaged_index_is_no_store(store: Path, what: str, harm: str) -> None:
    path = store / "part-00001" / f"{what}.npy"
    if harm == "cut":
        os.truncate(path, path.stat().st_size - 1)
    elif harm == "gone":
        path.unlink()
    else:
        np.save(path, np.zeros(path.stat().st_size - 128, dtype=np.int8))
    with pytest.raises(StoreError, match=f"{what}.npy: the store's index"):
        open_store(store)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no head of a store"),
        ("[1]", "no head of a store"),
        ('{"videomae_fast_store": 9, "parts": []}', "a store of format 9"),
        ('{"videomae_fast_store": 1, "parts": []}', "holds nothing yet"),
        ('{"videomae_fast_store": 1, "parts": [{}]}', "no head of a store"),
        ("[" * 100_000, "no head of a store"),
    ],
)
def test_a_damaged_head(store: Path, text: str, message: str) -> None:
    (store / HEAD).write_text(text)
    with pytest.raises(StoreError, match=message):
        open_store(store)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x.tar", "", "a\0b", 7])
def test_a_head_that_leads_out_of_the_store(store: Path, name: object) -> None:
    said = json.loads((store / HEAD).read_text())
    said["parts"][0]["tars"][0]["name"] = name
    (store / HEAD).write_text(json.dumps(said))
    with pytest.raises(StoreError, match="no head of a store"):
        open_store(store)


def test_tar_files_that_are_none(tmp_path: Path, clips: Path) -> None:
    paths = {name: tmp_path / f"{name}.tar" for name in ("text", "gz", "cut", "empty", "label")}
    paths["text"].write_text("no tar file")
    with tarfile.open(paths["gz"], "w:gz") as file:
        file.add(clips / "clip0.mp4", "a.mp4")
    with tarfile.open(paths["cut"], "w") as file:
        file.add(clips / "clip0.mp4", "a.mp4")
        file.add(clips / "clip1.mp4", "b.mp4")
    os.truncate(paths["cut"], 4000)
    with tarfile.open(paths["empty"], "w") as file:
        file.add(clips / "clip0.mp4", "a.txt")
    (tmp_path / "label").write_text("cat")
    with tarfile.open(paths["label"], "w") as file:
        file.add(clips / "clip0.mp4", "a.mp4")
        file.add(tmp_path / "label", "a.cls")
    for name, message in (
        ("text", "can't be read as a tar file"),
        ("gz", "unpack what is compressed"),
        ("empty", "no video in it"),
        ("label", "what stands beside a.mp4 can't be read"),
    ):
        with pytest.raises(StoreError, match=message):
            fill_store(tmp_path / "s", [paths[name]], Filling(), new=True)
    with pytest.raises(VideoMAEFastError, match="cut off"):
        fill_store(tmp_path / "s", [paths["cut"]], Filling(), new=True)
    with pytest.raises(UsageError, match="--shuffle: clips of tar files stay"):
        fill_store(tmp_path / "s", [paths["cut"]], Filling(shuffle=1), new=True)
    assert not is_store(tmp_path / "s")


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.support import stores
from videomae_fast.data.store import tar_writing
place = sys.argv[3]
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if place == "writing":
    tar_writing.IndexBuilder.write = kill
elif place == "renamed":
    tar_writing.write_head = kill
stores.write_store(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("place", ["writing", "renamed"])
def test_a_kill_leaves_the_version_before(store: Path, clip_list: Path, place: str) -> None:
    """And the next writer goes on as if nothing had been."""
    command = [sys.executable, "-c", KILLED, str(store), str(clip_list), place]
    root = Path(__file__).parents[3]
    killed = subprocess.run(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    assert killed.returncode == -signal.SIGKILL
    before = open_store(store)
    assert (before.version, len(before)) == (1, 6)
    before.read(5)
    assert len(list(store.glob("*part-00002"))) == 1
    write_store(store, clip_list)
    after = open_store(store)
    assert (after.version, len(after)) == (2, 12)
    assert after.read(7) == before.read(1)
    assert not list(store.glob(".partial*"))
    assert after.row(6).name == "000000006.mp4"


def test_what_is_in_the_way_of_a_part_stays(store: Path, clip_list: Path) -> None:
    (store / "part-00002").mkdir()
    (store / "part-00002" / "mine.txt").touch()
    with pytest.raises(StoreError, match="part-00002 is in the way of the store's next part"):
        write_store(store, clip_list)
    assert (store / "part-00002" / "mine.txt").exists()


def test_two_writers(store: Path, clip_list: Path) -> None:
    with TarWriter(store, 10**9), pytest.raises(UsageError, match="writes to the store"):
        write_store(store, clip_list)


def test_a_full_disk(store: Path, clip_list: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(VideoMAEFastError, match=r"No space left.*The store is as it was"):
        write_store(store, clip_list)
    assert len(open_store(store)) == 6


@pytest.fixture(scope="module")
def long_index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The index of ten million rows: 0.9 GB that are mostly holes."""
    folder = tmp_path_factory.mktemp("long")
    files = {what: folder / f"{what}.npy" for what in FILES}
    builder = IndexBuilder()
    builder.add(Row("a.mp4", "b.mp4", 1, 2, b"3" * 32, 4, 5.0, 6, 7), 0, 512)
    builder.write(files)
    first = np.load(files["rows"])
    for what, dtype, count in (("rows", ROW, 10**7), ("labels", np.dtype("<i4"), 10**7)):
        array = np.lib.format.open_memmap(files[what], "w+", dtype=dtype, shape=(count,))
        if what == "rows":
            array[-1:] = first
        else:
            array[-1:] = 7
        del array
    yield files
    shutil.rmtree(folder)


def test_ten_million_rows_open_at_once(long_index: dict[str, Path]) -> None:
    tracemalloc.start()
    begin = process_time()
    index = Index(long_index, 10**7)
    row, place = index.row(10**7 - 1)
    seconds = process_time() - begin
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (row.source, row.label, place.offset) == ("b.mp4", 7, 512)
    assert seconds < 0.5
    assert peak < 1e6


def test_no_name_is_too_odd(tmp_path: Path) -> None:
    """Bytes that are no text, quotes, spaces; what is too long for a row is an error."""
    names = [b'a "b" c.mp4', b"\xff\xfe.mp4", "ü ∑.MP4".encode(), b"no ending"]
    folder = tmp_path / "v"
    folder.mkdir()
    for name in names:
        write_video(folder / "x.mp4", 3).rename(folder / os.fsdecode(name))
    listed = tmp_path / "train.csv"
    listed.write_bytes(b"".join(b"%s 0 -1\n" % name for name in names))
    store = open_store(write_store(tmp_path / "s", listed, root=folder))
    assert [os.fsencode(store.row(row).source) for row in range(4)] == names
    assert [Path(store.row(row).name).suffix for row in range(4)] == [".mp4", ".mp4", ".MP4", ""]
    row = Row("a.mp4", "x" * 70_000, 1, 2, b"3" * 32, 4, 5.0, 6, 7)
    with pytest.raises(ValueError, match="a name of more than 65535 bytes"):
        IndexBuilder().add(row, 0, 0)


def test_export_leaves_damaged_clips_out(store: Path, tmp_path: Path) -> None:
    damaged_clip(store)
    done = export_store(open_store(store), tmp_path / "out", Filling())
    assert (done.rows, done.bad) == (5, 1)
    (told,) = done.bad_files.read_text().splitlines()
    assert f"{store} row 2 (clip2.mp4)" in json.loads(told)["place"]
    assert open_store(tmp_path / "out").labels.tolist() == [3, 0, 1, 0, 4]
