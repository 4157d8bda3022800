"""What opening a healthy file and reading a clip of it ask of FFmpeg, counted, not timed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.videos import write_video
from videomae_fast.data import open_video
from videomae_fast.data.decoders import bitstream, decoding, opening, pyav

FRAMES = 60
AVCC = bytes([1, 100, 0, 31, 255]) + bytes(20)
HVCC = bytes([1, *bytes(20), 3]) + bytes(10)


class Counted:
    """A container that counts what is asked of it."""

    def __init__(self, container: Any, counts: Counter[str]) -> None:
        self._container, self._counts = container, counts

    def demux(self, *streams: Any) -> Iterator[Any]:
        for packet in self._container.demux(*streams):
            self._counts["packets"] += 1
            yield packet

    def seek(self, *args: Any, **options: Any) -> None:
        self._counts["seeks"] += 1
        self._container.seek(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    counts: Counter[str] = Counter()
    really_open, really_decode = opening.open_stream, decoding.decode

    def open_stream(path: Path) -> Any:
        counts["opened"] += 1
        container, stream = really_open(path)
        return Counted(container, counts), stream

    def decode(packet: Any) -> Any:
        counts["decoded"] += 1
        return really_decode(packet)

    monkeypatch.setattr(pyav, "open_stream", open_stream)
    monkeypatch.setattr(decoding, "open_stream", open_stream)
    monkeypatch.setattr(decoding, "decode", decode)
    return counts


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.flv"])
def test_each_packet_is_read_once_and_a_clip_takes_one_seek(
    name: str, tmp_path: Path, counts: Counter[str]
) -> None:
    path = write_video(tmp_path / name, FRAMES, options={"g": "12", "bf": "2"})
    with open_video(path) as video:
        assert counts == {"opened": 1, "packets": FRAMES + 1}  # one more says that it ends
        assert video.numbered_by_decoding is None
        counts.clear()
        video.read([26, 28, 30])  # the third group begins at 24
    assert counts["seeks"] == 1
    assert "opened" not in counts
    # From the key frame on; frames come out some packets behind their own
    assert 7 <= counts["decoded"] <= 14
    assert counts["packets"] <= counts["decoded"] + 1


def units(data: memoryview, length_size: int) -> Iterator[int]:
    """First bytes of the NAL units, by the plainest walk."""
    place = 0
    if not length_size:
        for place in range(len(data) - 3):
            if bytes(data[place : place + 3]) == b"\0\0\1":
                yield data[place + 3]
        return
    while place + length_size < len(data):
        length = int.from_bytes(data[place : place + length_size], "big")
        if length:
            yield data[place + length_size]
        place += length_size + length


@pytest.mark.parametrize("extradata", [None, AVCC, HVCC], ids=["start codes", "avcC", "hvcC"])
def test_pictures_are_found_as_by_a_walk_over_the_units(extradata: bytes | None) -> None:
    draw = random.Random(0)
    said = Counter[bool]()
    for codec in ("h264", "hevc"):
        shows, starts = bitstream.shows(codec, extradata), bitstream.starts(codec, extradata)
        assert shows is not None
        assert starts is not None
        mine = {"h264": AVCC, "hevc": HVCC}[codec]
        size = 4 if extradata == mine else bitstream._length_size(codec, extradata)
        for _ in range(2000):
            data = memoryview(content(draw, size))
            kinds = [byte & 31 if codec == "h264" else byte >> 1 & 63 for byte in units(data, size)]
            pictures = range(1, 6) if codec == "h264" else range(32)
            assert shows(data) == any(kind in pictures for kind in kinds)
            if codec == "hevc":
                assert starts(data) == any(16 <= kind < 24 for kind in kinds)
            said[shows(data)] += 1
    assert min(said.values()) > 100


def content(draw: random.Random, length_size: int) -> bytes:
    """Units, some empty, some cut off; without lengths, bytes among which start codes are."""
    if not length_size:
        return bytes(draw.choice([0, 0, 1, draw.randrange(256)]) for _ in range(24))
    made = b""
    for _ in range(draw.randrange(5)):
        length = draw.choice([0, 1, 2, 9])
        made += length.to_bytes(length_size, "big") + draw.randbytes(length)
    return made[: draw.choice([len(made), draw.randrange(len(made) + 1)])]
