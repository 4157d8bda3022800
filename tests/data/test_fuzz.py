"""A few of the cases of ``make fuzz``; those of one seed, chosen to end within seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fuzz import boxes, pictures, stores, videos

NAMES = ("h264.mp4", "h264.ts", "vp9.webm", "mpeg4.mp4")


def test_damaged_videos(tmp_path: Path) -> None:
    sources = videos.make_sources(tmp_path / "sources", NAMES)
    for number in range(32):
        case = videos.Case(number, 1, NAMES[number % len(NAMES)], sources, tmp_path)
        assert videos.check(case) == []


def test_damaged_pictures(tmp_path: Path) -> None:
    assert list(pictures.run(200, 1, tmp_path)) == []


def test_damaged_boxes(tmp_path: Path) -> None:
    assert list(boxes.run(400, 1, tmp_path)) == []


def test_wrong_boxes_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader with each fault in turn: a traceback, no name, refused or moved boxes, a score."""
    files = {
        "list.csv": b"a,2,0.1,0.2,0.5,0.6,1\n",
        "persons.csv": b"a,2,0,0,1,1,,0.9\n",
        "out.csv": b"",
    }
    assert boxes._try(files, "", tmp_path) == ""
    whole = boxes.read_key_frames

    def raising(error: Exception) -> Any:
        def read(*_: Any) -> Any:
            raise error

        return read

    def changed(**values: Any) -> Any:
        def read(*given: Any) -> Any:
            found = whole(*given)
            return replace(found, entries=[replace(one, **values) for one in found.entries])

        return read

    listed = str(tmp_path / "list.csv")
    for read, damaged, told in (
        (raising(KeyError("x")), "list.csv", "KeyError"),
        (raising(boxes.ListError("bad")), "list.csv", "refused, and not in a sentence"),
        (raising(boxes.ListError(f"{listed}: \n")), "list.csv", "refused, and not in a sentence"),
        (raising(boxes.ListError(f"{listed}: bad")), "", "refused, and not in a sentence"),
        (raising(boxes.ListError(f"{listed}: bad")), "list.csv", ""),
        (changed(boxes=np.array([[0.1, 0.2, 0.5, 0.7]])), "list.csv", "read as"),
        (changed(boxes=np.array([[0.1, 0.2, 0.5, 1.6]])), "list.csv", "in 1 x 1"),
        (changed(scores=np.array([0.7])), "list.csv", "scores [0.7]"),
        (changed(seconds=float("nan")), "list.csv", "at nan s"),
    ):
        monkeypatch.setattr(boxes, "read_key_frames", read)
        said = boxes._try(files, damaged, tmp_path)
        assert told in said, (said, told)
        assert bool(told) == bool(said)


def test_damaged_stores(tmp_path: Path) -> None:
    assert list(stores.run(150, 1, tmp_path)) == []


def test_a_wrong_frame_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so are another count, and an error that is no DecodeError."""
    from videomae_fast.data.decoders.pyav import PyAVReader

    sources = videos.make_sources(tmp_path / "sources", ("h264.mp4",))
    case = videos.Case(0, 1, "h264.mp4", sources, tmp_path)

    def whole(draw: object, source: Path, path: Path) -> None:
        path.write_bytes(source.read_bytes())

    monkeypatch.setattr(videos, "DAMAGES", {"none": whole})
    assert videos.check(case) == []
    read = PyAVReader.read
    monkeypatch.setattr(PyAVReader, "read", lambda self, ids: read(self, [*ids[1:], ids[0]]))
    (finding,) = videos.check(case)
    assert "frame 0 of [0, 3, 6, 9, 12, 15] is 3" in finding
    monkeypatch.setattr(PyAVReader, "read", read)
    monkeypatch.setattr(videos, "probe_file", lambda job: (_ for _ in ()).throw(KeyError("x")))
    with pytest.raises(KeyError):
        videos.check(case)
