from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.fuzz import lists as fuzz
from videomae_fast.data import Entry, ListError, Source, load_list, unlabeled_hybrid
from videomae_fast.data.lists import list_line
from videomae_fast.data.lists import writing as module
from videomae_fast.data.lists.sources import load_sources
from videomae_fast.recipes.source import ListFormat


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def entries(path: Path, format: ListFormat = "pretrain") -> list[Entry]:
    loaded = load_list(path, format)
    return [loaded[index] for index in range(len(loaded))]


def test_pretraining_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path / "list.csv",
        b"\xef\xbb\xbfa/b.mp4 0 -1\n"
        b"# a comment 0 -1\n"
        b"\n   \t\n"
        b"frames/one 9601 300\r\n"
        b"  a path with 3 spaces/and  two.mp4\t0   -1  \n"
        b'"quoted name.mp4" 0 -1\n'
        b"caf\xc3\xa9/\xff.mp4 7 -5",
    )
    assert entries(path) == [
        Entry("a/b.mp4", 0, -1, -1, 1),
        Entry("frames/one", 9601, 300, -1, 5),
        Entry("a path with 3 spaces/and  two.mp4", 0, -1, -1, 6),
        Entry("quoted name.mp4", 0, -1, -1, 7),
        Entry(os.fsdecode(b"caf\xc3\xa9/\xff.mp4"), 7, -1, -1, 8),
    ]
    assert [entry.is_video for entry in entries(path)] == [True, False, True, True, True]


def test_fine_tuning_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", "a.mp4 325\nmy clip 2.mp4 0\n")
    assert entries(path, "labels") == [
        Entry("a.mp4", 0, -1, 325, 1),
        Entry("my clip 2.mp4", 0, -1, 0, 2),
    ]
    path = write(tmp_path / "val.csv", "SomethingV2/frames/74225 62 140\n")
    assert entries(path, "folder-labels") == [Entry("SomethingV2/frames/74225", 1, 62, 140, 1)]
    assert load_list(path, "folder-labels", start=0)[0].start == 0


@pytest.mark.parametrize(
    ("format", "line", "says"),
    [
        ("pretrain", "a.mp4", "missing"),
        ("pretrain", "a.mp4 3", 'format="labels"'),
        ("pretrain", "0 -1", "found '0 -1'"),
        ("pretrain", "a.mp4,0,-1", "not by commas"),
        ("pretrain", "a.mp4 0 x", "found 'a.mp4 0 x'"),
        ("pretrain", "a.mp4 0-1", "found 'a.mp4 0-1'"),
        ("pretrain", "a.mp4 0 1.5", "expected `path 0 -1`"),
        ("pretrain", "folder 1 0", "at least 1 for a folder"),
        ("pretrain", "folder -1 30", "start is at least 0"),
        ("pretrain", "folder 1 99999999999", "expected"),
        ("pretrain", "folder 1 2999999999", "expected"),
        ("pretrain", "folder 1 -", "expected"),
        ("labels", "a.mp4 -1", "expected `path label`"),
        ("labels", "12", "expected `path label`"),
        ("folder-labels", "folder 12", "expected `folder total label`"),
        ("folder-labels", "folder 0 12", "expected `folder total label`"),
    ],
)
def test_wrong_lines(tmp_path: Path, format: ListFormat, line: str, says: str) -> None:
    good = {"pretrain": "a 0 -1", "labels": "a 1", "folder-labels": "a 1 1"}[format]
    path = write(tmp_path / "list.csv", f"{good}\n\n{line}\n{good}\n{line}\n")
    with pytest.raises(ListError) as caught:
        load_list(path, format)
    assert str(caught.value).startswith(f"{path}:3: found {line!r}; expected ")
    assert says in str(caught.value)
    assert "1 more line is wrong" in str(caught.value)


NAMES = [
    b"#h.mp4", b"##", b" a.mp4", b"a.mp4 ", b"\ta", b"a\x0b", b"\x0ca", b"a b.mp4", b'"a"', b'"',
    b'""', b'" "', b'a"b', b'a""b c', b'"a', b"a\rb.mp4", b"\ra", b"a\r", b"\xef\xbb\xbfa",
    b"\xff\xfea.mp4", b"\xfe\xff", b"\0\0\xfe\xffa", b"a\0b", b"0 -1", b"1", b"-1", b".", b"/",
    "a\u2028b".encode(), "\u3000a".encode(), b"caf\xe9", b"a,b", b"./#h.mp4",
]  # fmt: skip


@pytest.mark.parametrize("format", ["pretrain", "labels", "folder-labels"])
def test_any_path_is_read_back_as_it_was_written(tmp_path: Path, format: ListFormat) -> None:
    numbers = {"pretrain": (7, -1, -1), "labels": (0, -1, 3), "folder-labels": (1, 9, 3)}[format]
    for names in ([name] for name in NAMES), (NAMES, NAMES[::-1]):
        for each in names:
            given = [Entry(os.fsdecode(n), *numbers, i) for i, n in enumerate(each, start=1)]
            lines = "".join(list_line(entry, entry.path, format) for entry in given)
            assert entries(write(tmp_path / "list.csv", os.fsencode(lines)), format) == given


def test_plain_paths_are_written_as_the_official_code_reads_them() -> None:
    entry = Entry("", 0, -1, 5, 1)
    assert list_line(entry, "a b/c.mp4", "pretrain") == "a b/c.mp4 0 -1\n"
    assert list_line(entry, "c.mp4", "labels") == "c.mp4 5\n"
    assert list_line(entry, 'a "b".mp4', "labels") == '"a ""b"".mp4" 5\n'  # CSV
    for path in ("", "a\nb.mp4"):
        with pytest.raises(ListError, match="one path per line; rename"):
            list_line(entry, path, "labels")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_marks_and_line_ends(tmp_path: Path, encoding: str, end: str) -> None:
    text = end.join(["# list", "a.mp4 0 -1", "", "f/\u00e9 1 30", ""])
    text = text if encoding in ("utf-16", "utf-8-sig") else "\ufeff" + text
    assert entries(write(tmp_path / "list.csv", text.encode(encoding))) == [
        Entry("a.mp4", 0, -1, -1, 2),
        Entry("f/\u00e9", 1, 30, -1, 4),
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a 0 -1\rb 0 -1\nc 0 -1\n", r":1: found 'a 0 -1\\rb 0 -1'.*the same ends"),
        (b"a 0 -1\n# c\rb 0 -1\n", r":2: found a carriage return within a comment"),
        (b'"" 0 -1\n', r":1: found '\"\" 0 -1'"),
        ("a.mp4 0 -1\n".encode("utf-16-le"), r":1: found .*save it as UTF-8"),
        ("a.mp4 0 -1\n".encode("utf-32"), r"mark of UTF-32: save it as UTF-8"),
        (b"\xff\xfea.mp4 0 -1\n", r"mark of UTF-16 but is none .*: save it as UTF-8"),
    ],
)
def test_what_hides_entries_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(ListError, match=r"list\.csv" + f".*{says}"):
        load_list(write(tmp_path / "list.csv", content))


def test_no_list_waits_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ListError, match=r"pipe: .* \(it is a pipe\); expected a text file"):
        load_list(tmp_path / "pipe")
    with pytest.raises(ListError, match=r"it is a folder: videomae-fast list FOLDER > train\.csv"):
        load_list(tmp_path)
    with pytest.raises(ListError, match="null byte"):
        load_list("a\0b")


def test_damaged_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The short form of ``python -m tests.fuzz lists``."""
    assert list(fuzz.run(600, 0, tmp_path)) == []
    monkeypatch.setattr(module, "_misread", lambda raw: False)
    assert list(fuzz.run(100, 0, tmp_path))


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n"])
def test_empty_list(tmp_path: Path, text: str) -> None:
    with pytest.raises(ListError, match="no entry; expected"):
        load_list(write(tmp_path / "list.csv", text))


def test_missing_list(tmp_path: Path) -> None:
    with pytest.raises(ListError, match=r"none\.csv.*No such file"):
        load_list(tmp_path / "none.csv")


def test_changed_list_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "list.csv", "a 0 -1\n")
    first = load_list(path)
    assert load_list(path) is first
    write(path, "b 0 -1\nc 0 -1\n")
    assert [entry.path for entry in entries(path)] == ["b", "c"]


def test_large_list(tmp_path: Path) -> None:
    """300,000 lines: linear time, 28 bytes a line, and every line right."""
    count = 300_000
    text = "".join(f"k400/train/a b/{i:07}.mp4 0 -1\nf/{i} 1 {i + 1}\n" for i in range(count // 2))
    path = write(tmp_path / "list.csv", text)
    began = time.process_time()
    loaded = load_list(path)
    assert time.process_time() - began < 5
    assert len(loaded) == count
    columns = ("path_start", "path_length", "start", "total", "label", "line")
    assert sum(getattr(loaded, name).nbytes for name in columns) == 28 * count
    for index in (0, 1, 77_778, 123_457, count - 1):
        half = index // 2
        assert loaded[index] == (
            Entry(f"f/{half}", 1, half + 1, -1, index + 1)
            if index % 2
            else Entry(f"k400/train/a b/{half:07}.mp4", 0, -1, -1, index + 1)
        )


HYBRID = """your/k400/a.mp4 0 -1
your/AVA2.2/frames/x 9601 300
your/SomethingV2/frames/1 1 58
your/SomethingV2/videos/1.mp4 0 -1
your/other/frames/5 1 40
your/SomethingV2/frames/2 1 29
"""


def test_hybrid(tmp_path: Path) -> None:
    path = write(tmp_path / "hybrid.csv", HYBRID)
    loaded = load_sources(unlabeled_hybrid(path, "/data"))
    found = {
        str(part.file(i)): (part.source.stride, part.source.name_pattern)
        for part in loaded
        for i in range(len(part))
    }
    assert sum(len(part) for part in loaded) == 6
    assert found == {
        "/data/your/k400/a.mp4": (None, "img_{:05}.jpg"),
        "/data/your/SomethingV2/videos/1.mp4": (None, "img_{:05}.jpg"),
        "/data/your/AVA2.2/frames/x": (None, "image_{:06}.jpg"),
        "/data/your/SomethingV2/frames/1": (2, "img_{:05}.jpg"),
        "/data/your/SomethingV2/frames/2": (2, "img_{:05}.jpg"),
        "/data/your/other/frames/5": (None, "img_{:05}.jpg"),
    }
    shares = {part.source.label: part.share for part in loaded}
    assert shares == pytest.approx(
        {"videos": 2 / 6, "SomethingV2 frames": 2 / 6, "AVA frames": 1 / 6, "other frames": 1 / 6}
    )
    assert len({id(part.entries.text) for part in loaded}) == 1


def test_hybrid_of_videos_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "list.csv", "a 0 -1\n")
    assert [source.label for source in unlabeled_hybrid(path)] == ["videos"]


def test_contains_only_looks_inside_paths(tmp_path: Path) -> None:
    path = write(tmp_path / "list.csv", "# xx\nax 0 -1\nxxb 0 -1\nc 1 20\nxx 0 -1\nd/xxxx 0 -1\n")
    loaded = load_list(path)
    assert loaded.containing("xx").tolist() == [False, True, False, True, True]
    assert loaded.containing("20").tolist() == [False] * 5
    (part,) = load_sources([Source(path, contains="xx")])
    assert [part.entries[i].line for i in range(len(part))] == [3, 5, 6]
    with pytest.raises(ListError, match="none of its 5 entries is kept by contains='zz'"):
        load_sources([Source(path, contains="zz")])


def test_weights(tmp_path: Path) -> None:
    one = write(tmp_path / "one.csv", "a 0 -1\n")
    three = write(tmp_path / "three.csv", "a 0 -1\nb 0 -1\nc 0 -1\n")
    assert [s.share for s in load_sources([Source(one), Source(three)])] == [0.25, 0.75]
    weighted = [Source(one, weight=3), Source(three, weight=1)]
    assert [s.share for s in load_sources(weighted)] == [0.75, 0.25]
    with pytest.raises(ValueError, match=r"three\.csv has no weight"):
        load_sources([Source(one, weight=3), Source(three)])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"weight": 0.0}, "weight"),
        ({"stride": 0}, "stride"),
        ({"name_pattern": "img_%05d.jpg"}, "no place for the frame number"),
        ({"name_pattern": "{:q}.jpg"}, "can't be formatted"),
        ({"only": "movies"}, "only"),
    ],
)
def test_wrong_source(options: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Source(Path("list.csv"), **options)  # type: ignore[arg-type]
