"""Whatever a file is, probe, prepare, the cache and training number its frames alike."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.support.kinds import KINDS, ODD, SOUND, plain_decode, scenes
from tests.support.real_clips import CLIPS, needs_clips
from tests.support.videos import read_number, read_numbers, write_video
from videomae_fast.data import CachedVideos, open_video
from videomae_fast.data.decoders.pyav import PyAVReader
from videomae_fast.data.decoders.transport import ends_whole
from videomae_fast.data.order import Draw
from videomae_fast.data.prepare import Job, PrepareSettings, transcode
from videomae_fast.data.probe import ProbeJob, probe_file
from videomae_fast.data.reading import ClipRequest, ReadSettings, read

KEYLESS = ("no key flags", "MP4, its key frame hidden")


class Kind(NamedTuple):
    name: str
    path: Path


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kind:
    name: str = request.param
    return Kind(name, KINDS[name](tmp_path_factory.mktemp("kind")))


def truth(path: Path) -> list[int]:
    numbers = plain_decode(path)
    # Its last frame is damaged, and no frame that can be given out.
    return numbers[:-1] if path.name == "t.ts" else numbers


def test_each_frame_is_that_of_a_plain_decode(kind: Kind) -> None:
    """And files whose times hold are numbered without decoding."""
    numbers = truth(kind.path)
    order = np.random.default_rng(0).permutation(len(numbers))
    with PyAVReader(kind.path) as video:
        assert (video.numbered_by_decoding is None) == (kind.name in SOUND)
        assert kind.name in (*ODD, *KEYLESS) or video.key_frames
        assert video.frame_count == len(numbers)
        for number in order[:12].tolist():
            assert read_number(video.read([number])[0]) == numbers[number]
        for first in range(0, len(numbers), 11):
            ids = [min(first + 3 * place, len(numbers) - 1) for place in range(8)]
            assert read_numbers(video.read(ids)) == [numbers[number] for number in ids]
        assert read_numbers(video.read(range(len(numbers)))) == numbers


def test_probe_prepare_cache_and_training_agree(kind: Kind, tmp_path: Path) -> None:
    numbers = truth(kind.path)
    agree(kind.path, len(numbers), tmp_path)
    with open_video(tmp_path / "new.mp4") as prepared:
        assert read_numbers(prepared.read(range(len(numbers)))) == numbers


def agree(path: Path, count: int, folder: Path) -> None:
    """Checks the number of frames everywhere, and the pixels of a clip."""
    facts = probe_file(ProbeJob(0, path, 0, -1, "", decode=True))
    assert (facts.frames, facts.decoded_frames) == (count, count)
    job = Job(path, folder / "new.mp4", folder / "partial.mp4", PrepareSettings(preset="ultrafast"))
    assert transcode(job).frames == count
    cache = CachedVideos(folder / "cache", 10**9)
    pieces = []
    for cached in (None, cache, cache):
        request = ClipRequest(Draw(0, 0, 0, 0, 0), path, path, 1, -1, 0, -1, "", 2, (7,) * 5)
        reading = ReadSettings(8, (64, 64), 1, "pyav", hand_over="frames", cache=cached)
        pieces.append(read(request, reading))
    assert cache.counts.hits == 0  # they were taken with the pieces
    assert [piece.cached and piece.cached.hits for piece in pieces] == [None, 0, 1]
    with open_video(path) as video:
        clip = video.read(pieces[0].ids)
    for piece in pieces:
        assert piece.frame_count == count
        assert piece.ids == pieces[0].ids
        np.testing.assert_array_equal(piece.data, clip)


@needs_clips
def test_all_agree_on_real_clips(tmp_path: Path) -> None:
    for path in CLIPS:
        folder = tmp_path / path.name
        folder.mkdir()
        agree(path, len(plain_decode(path)), folder)


def test_seeks_that_lead_astray_are_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a seek does, frames are those that were asked for."""
    path = write_video(tmp_path / "a.ts", make=scenes)
    with PyAVReader(path) as video:
        assert video.key_frames == [0, 12, 24, 36, 48]
        container = video._container

        class Astray:
            def __init__(self, by: int) -> None:
                self.by = by

            def __getattr__(self, name: str) -> object:
                return getattr(container, name)

            def seek(self, target: int, **how: object) -> None:
                container.seek(target + self.by, **how)  # type: ignore[arg-type]

        for by in (-100_000, -43_200, 43_200, 100_000):
            monkeypatch.setattr(video._seeker, "_container", Astray(by))
            for number in (0, 13, 31, 59):
                assert read_number(video.read([number])[0]) == number


def test_a_gap_in_the_times_costs_no_seek(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left out around it, whatever was left out before."""
    times = [40 * number + 400 * (number > 60) for number in range(120)]
    with PyAVReader(write_video(tmp_path / "gap.mp4", 120, times=times)) as video:
        monkeypatch.setattr(video, "_read_from_start", None)
        for ids in ([100, 104, 108], [57, 61, 66], [2, 6, 10], [60]):
            assert read_numbers(video.read(ids)) == ids


def test_the_end_of_a_transport_stream_tells_whether_it_is_whole(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", 24, make=scenes)
    content = path.read_bytes()
    packets = [content[at : at + 188] for at in range(0, len(content), 188)]
    assert ends_whole(path, 256)
    assert not ends_whole(path, 257)
    m2ts = tmp_path / "a.m2ts"
    m2ts.write_bytes(b"".join(b"time" + packet for packet in packets))
    assert ends_whole(m2ts, 256)
    starts = [n for n, p in enumerate(packets) if p[1] & 0x5F == 0x41 and not p[2]]  # of 256
    assert starts[-1] + 1 < len(packets), "the last picture has more packets than one"
    for cut in (len(content) - 1, (starts[-1] + 1) * 188):
        path.write_bytes(content[:cut])
        assert not ends_whole(path, 256)
