"""A few of the cases of ``make fuzz``; those of one seed, chosen to end within seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import pictures, stores, videos

NAMES = ("h264.mp4", "h264.ts", "vp9.webm", "mpeg4.mp4")


def test_damaged_videos(tmp_path: Path) -> None:
    sources = videos.make_sources(tmp_path / "sources", NAMES)
    for number in range(32):
        case = videos.Case(number, 1, NAMES[number % len(NAMES)], sources, tmp_path)
        assert videos.check(case) == []


def test_damaged_pictures(tmp_path: Path) -> None:
    assert list(pictures.run(200, 1, tmp_path)) == []


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
