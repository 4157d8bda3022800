"""Persons in pickles: those of mmaction2, whatever wrote them; and nothing in them is run."""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videomae_fast.data.boxes.ava_files import read_boxes
from videomae_fast.data.boxes.entries import read_key_frames
from videomae_fast.data.boxes.pickled import read_pickled_persons
from videomae_fast.data.errors import ListError
from videomae_fast.recipes.box_source import BoxSource

ROWS = {
    "a,0002": [[0.1, 0.2, 0.5, 0.6, 0.9], [0.0, 0.0, 1.0, 1.0, 0.5]],
    "b,c,0004": [[0.25, 0.5, 0.75, 1.0, 0.8125]],
    "empty,3": [],
}


def arrays(dtype: str = "float64", **how: Any) -> dict[str, Any]:
    return {key: np.array(rows, dtype, **how).reshape(-1, 5) for key, rows in ROWS.items()}


KINDS: dict[str, Any] = {
    "arrays": arrays(),
    "float32": arrays("float32"),
    "big-endian": arrays(">f8"),
    "columns": {key: np.asfortranarray(one) for key, one in arrays().items()},
    "lists": ROWS,
    "tuples": OrderedDict((key, [tuple(row) for row in rows]) for key, rows in ROWS.items()),
    "scalars": {key: [list(row) for row in one] for key, one in arrays().items()},
    "rows": {key: list(one) for key, one in arrays().items()},
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", KINDS)
def test_persons_are_read_whatever_wrote_them(kind: str, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "p.pkl"
    path.write_bytes(pickle.dumps(KINDS[kind], protocol))
    found = read_pickled_persons(path)
    assert sorted(found) == [("a", "0002"), ("b,c", "0004")]
    for (video, second), boxes in found.items():
        rows = np.array(ROWS[f"{video},{second}"])
        rough = {"float32": 1e-7}.get(kind, 0)
        np.testing.assert_allclose(boxes.boxes, rows[:, :4], atol=rough)
        np.testing.assert_allclose(boxes.scores, rows[:, 4], atol=rough)
        assert boxes.boxes.dtype == boxes.scores.dtype == np.float64


@pytest.mark.parametrize("module", [b"numpy.core", b"numpy._core"])
def test_names_of_both_numpys(module: bytes, tmp_path: Path) -> None:
    path = tmp_path / "p.pkl"
    written = pickle.dumps(arrays(), 2).replace(b"numpy._core", module)
    assert module + b".multiarray\n_reconstruct" in written
    path.write_bytes(written)
    assert len(read_pickled_persons(path)) == 2


def test_bytes_of_python_2(tmp_path: Path) -> None:
    """There an array's bytes were a str, which stands as such in protocol 2."""
    array = np.array([[0.1, 0.2, 0.5, 0.6, 0.9]])
    text = (
        b"\x80\x02}U\x03a,2cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01bt"
        b"R(K\x01K\x01K\x05\x86cnumpy\ndtype\n(U\x02f8K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x28" + array.tobytes() + b"tbs."
    )
    (tmp_path / "p.pkl").write_bytes(text)
    (boxes,) = read_pickled_persons(tmp_path / "p.pkl").values()
    assert boxes.boxes.tolist() == array[:, :4].tolist()
    assert boxes.scores.tolist() == [0.9]


def test_a_list_takes_them_as_it_takes_csv(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,0002,0.1,0.2,0.5,0.6,1\na,0004,0,0,1,1,1\n")
    persons = {"a,0002": np.array([[0.1, 0.2, 0.5, 0.6, 0.9], [0, 0, 1, 1, 0.5]]), **ROWS}
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(persons))
    lines = [",".join(map(str, [key, *row[:4], "", row[4]])) for key in ROWS for row in ROWS[key]]
    (tmp_path / "p.csv").write_text("".join(f"{line}\n" for line in lines if line[0] != "b"))
    pickled, written = (
        read_key_frames(BoxSource(tmp_path / "a.csv", proposals=tmp_path / name), 1, 0.8)
        for name in ("p.pkl", "p.csv")
    )
    assert pickled.note == "1 persons below 0.8, 1 persons of other videos"
    for one, two in zip(pickled.entries, written.entries, strict=True):
        assert (one.key, one.persons.tolist(), one.scores.tolist()) == (
            (two.key, two.persons.tolist(), two.scores.tolist())
        )
    assert len(read_boxes(tmp_path / "p.csv", "persons")) == 1


@pytest.mark.parametrize("box", [list, tuple, np.array, np.float32])
def test_a_json_list_takes_records(box: Any, tmp_path: Path) -> None:
    images = [{"id": 5, "movie": "a", "timestamp": 2, "width": 200, "height": 100}]
    annotations = [{"image_id": 5, "bbox": [20, 20, 80, 40], "action_ids": [1]}]
    (tmp_path / "a.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    record = {"image_id": 5, "bbox": box([20, 20, 80, 40]), "score": np.float32(0.9)}
    (tmp_path / "p.pkl").write_bytes(pickle.dumps([record]))
    source = BoxSource(tmp_path / "a.json", proposals=tmp_path / "p.pkl")
    (entry,) = read_key_frames(source, 1, 0.8).entries
    assert entry.persons.tolist() == [[20, 20, 99, 59]]
    assert entry.scores.tolist() == [pytest.approx(0.9)]


class Calls:
    """An object whose pickle calls something."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._said = function, arguments

    def __reduce__(self) -> Any:
        return self._said


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "told"),
    [(os.mkdir, f"{os.name}.*mkdir"), (eval, "eval"), (np.load, "numpy.*load")],
)
def test_nothing_is_run(function: Any, told: str, protocol: int, tmp_path: Path) -> None:
    path, made = tmp_path / "p.pkl", tmp_path / "made"
    argument: Any = f"__import__('os').mkdir({str(made)!r})" if function is eval else str(made)
    for value in (
        Calls(function, argument),
        {**arrays(), "a,9": Calls(function, argument)},
        {"a,2": [[0.0, 0.0, 1.0, 1.0, Calls(function, argument)]]},
    ):
        path.write_bytes(pickle.dumps(value, protocol))
        with pytest.raises(ListError, match=rf"p\.pkl: .*{told}"):
            read_pickled_persons(path)
        assert not made.exists()
    pickle.loads(path.read_bytes()) if function is os.mkdir else None
    assert made.exists() == (function is os.mkdir)  # elsewhere it would have been


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([], "must hold a dict from 'video,timestamp'"),
        ({"a": ROWS["a,0002"]}, "the key 'a' is no 'video,timestamp'"),
        ({2: []}, "the key 2 is no"),
        ({("a", 2): []}, "the key a inert is no"),
        ({"a,2": 7}, "a,2: 7 where boxes are"),
        ({"a,2": [[0, 0, 1]]}, "a,2: a list where a box of 4 or 5 numbers is"),
        ({"a,2": [[0, 0, 1, "x"]]}, "a,2: a list where numbers are"),
        ({"a,2": [[0, 0, 1, 10**400]]}, "a,2: int too large"),
        ({"a,2": np.zeros((2, 6))}, r"a,2: an array of \(2, 6\)"),
        ({"a,2": np.zeros((2, 2, 5))}, "none of numbers in rows"),
        ({"a,2": np.zeros(2, "f4,f4")}, "'V8', not of numbers"),
        ({"a,2": np.array([[{}] * 5])}, "'O8', not of numbers"),
        ({"a,2": np.zeros((1, 5), "c16")}, "'c16', not of numbers"),
        ({"a,2": [[0, 0, 20, 20, 0.9]]}, r"a,2: boxes are in shares .*: \[0.0, 0.0, 20.0, 20.0\]"),
        ({"a,2": [[0, 0, 1, 1, 1.5]]}, "a,2: the score of a person is not 0 to 1"),
        ({"a,2": [[0, 0, 1, float("nan"), 0.5]]}, "a,2: a box or score is no finite number"),
    ],
)
def test_what_can_not_be_is_named(value: Any, told: str, tmp_path: Path) -> None:
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(ListError, match=rf"{tmp_path}/p\.pkl: .*{told}"):
        read_pickled_persons(tmp_path / "p.pkl")


def test_a_small_file_is_not_many_boxes(tmp_path: Path) -> None:
    """One array under a thousand keys, and one text that is the bytes of a thousand arrays."""
    shared = np.zeros((1000, 5))
    value = {f"a,{number}": shared for number in range(1000)}
    for protocol in (2, 5):
        path = tmp_path / "p.pkl"
        path.write_bytes(pickletools.optimize(pickle.dumps(value, protocol)))
        with pytest.raises(ListError, match="so often that they are more than its bytes"):
            read_pickled_persons(path)


def test_what_is_said_once_is_not_worked_on_often(tmp_path: Path) -> None:
    """A megabyte as a key and as a name, 100,000 times; and a list that is 2**60 lists."""
    large = b"\x8b" + (2**20).to_bytes(4, "little") + b"\1" * 2**20  # LONG4
    keys = b"\x80\x04" + large + b"\x94}" + b"h\0Ns" * 100_000 + b"."
    text = b"X" + (2**20).to_bytes(4, "little") + b"a" * 2**20
    names = b"\x80\x04" + text + b"\x94" + b"h\0h\0\x930" * 100_000 + b"."
    deep: list[Any] = []
    for _ in range(60):
        deep = [deep, deep]  # what it would be told with is 2**60 brackets
    nested = pickle.dumps({"a,1": Calls(np.dtype, deep)})
    for content, told in (
        (keys, "the key a inert is no"),
        (names, "no such long name"),
        (nested, "its arrays are of a list, not of numbers"),
    ):
        (tmp_path / "p.pkl").write_bytes(content)
        begin = time.process_time()
        with pytest.raises(ListError, match=told):
            read_pickled_persons(tmp_path / "p.pkl")
        assert time.process_time() - begin < 5


def test_other_lists_and_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.pkl"
    images = [{"id": 5, "movie": "a", "timestamp": 2, "width": 200, "height": 100}]
    (tmp_path / "a.json").write_text(json.dumps({"images": images, "annotations": []}))
    source = BoxSource(tmp_path / "a.json", proposals=path)
    for content, told in (
        (pickle.dumps(ROWS), "must hold a list of dicts with image_id"),
        (pickle.dumps([-(10**5000)]), r"\[0\] must be an object"),
        (pickle.dumps([7]), r"\[0\] must be an object"),
        (pickle.dumps([{"image_id": [[]], "bbox": [0] * 9, "score": {}}]), "image_id is"),
        (b"", "can't be read as a pickle of boxes"),
        (b"not a pickle", "can't be read as a pickle of boxes"),
        (b"\x80\x02cos\nsystem\n.", "must hold a list of dicts"),
        (b"\x80\x02P7\n.", "can't be read as a pickle"),
    ):
        path.write_bytes(content)
        with pytest.raises(ListError, match=rf"p\.pkl: .*{told}|p\.pkl: {told}"):
            read_key_frames(source, 1, 0.8)
    path.unlink()
    with pytest.raises(ListError, match=r"p\.pkl: can't be read as a pickle .*No such file"):
        read_pickled_persons(path)
