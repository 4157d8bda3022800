"""Damaged videos: each frame that is given out is the one a plain decode gives at its number.

A finding is an error that is no DecodeError, a frame that is not that of a plain decode, or probe,
reader and prepare counting differently. Damage can show in pictures, of a plain decode as well: a
picture counts as sound where it is that of the undamaged video with the number that is on it, and
only sound ones of a plain decode say what a frame has to be.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

from tests.support.kinds import ALTERNATE, HEVC, HEVC_OPEN, MPEG2, MPEG4, OPEN, VP9, copy
from tests.support.videos import read_number, write_video
from videomae_fast.data.decoders import Frames
from videomae_fast.data.decoders.orientation import orientation
from videomae_fast.data.decoders.pyav import PyAVReader
from videomae_fast.data.errors import DecodeError
from videomae_fast.data.loader.workers import WorkerPool
from videomae_fast.data.prepare import Job, PrepareSettings, transcode
from videomae_fast.data.probe import ProbeJob, probe_file

FULL: Final = 2000
_FRAMES: Final = 36
_SECONDS: Final = 60.0  # for one file
_PREPARED: Final = 8  # one file of so many is prepared, too
_DAMAGED: Final = -1  # in place of a picture's number
_APART: Final = 4  # mean difference from which a picture is damaged, in grey levels

SOURCES: Final[dict[str, dict[str, Any]]] = {
    "h264.mp4": {},
    "open.mp4": OPEN,
    "plain.mp4": {"options": {"g": "12", "bf": "0"}},
    "fragments.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}},
    "h264.mkv": {},
    "h264.ts": {},
    "h264.flv": {},
    "h264.avi": {},
    "h264.asf": {"options": {"g": "12", "bf": "0"}},
    "raw.264": {},
    "hevc.mp4": HEVC,
    "open.mkv": HEVC_OPEN,
    "vp8.webm": {"codec": "libvpx", "options": {"g": "12", "auto-alt-ref": "1"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": VP9},
    "alternate.webm": ALTERNATE,
    "av1.mkv": {"codec": "libsvtav1", "options": {"preset": "10", "g": "16"}, "size": (128, 96)},
    "mpeg2.ts": MPEG2,
    "mpeg2.mpg": MPEG2,
    "mpeg4.avi": MPEG4,
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}, "size": (128, 96)},
    "jpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p", "options": {}},
    "picture.gif": {"codec": "gif", "pixels": "rgb8", "options": {}},
}

_OTHER_TIMES: Final = ("packets at other times", "packets exchanged")
_SOUND_PACKETS: Final = (*_OTHER_TIMES, "packets flagged")

Damage = Callable[[random.Random, Path, Path], None]
"""From a random source and a sound video to a damaged file."""


@dataclass(frozen=True)
class Case:
    """A damaged video: made of ``sources / source`` in ``folder``."""

    number: int
    seed: int
    source: str
    sources: Path
    folder: Path


def run(count: int, seed: int, folder: Path) -> Iterator[str]:
    """Damages ``count`` videos; yields a line for each finding."""
    sources = make_sources(folder / "sources")
    cases = (
        Case(number, seed, list(SOURCES)[number % len(SOURCES)], sources, folder)
        for number in range(count)
    )
    workers = min(count, os.cpu_count() or 1)
    with WorkerPool(check, workers=workers, time_limit=_SECONDS) as pool:
        for done in pool.run(cases):
            if done.result is None:
                assert done.problem is not None
                yield f"{_name(done.task)}: {done.problem.sentence}"
            else:
                yield from done.result


def make_sources(folder: Path, names: tuple[str, ...] = tuple(SOURCES)) -> Path:
    """The sound videos; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        write_video(folder / name, _FRAMES, **SOURCES[name])
    return folder


def _name(case: Case) -> str:
    return f"{case.source} --seed {case.seed} case {case.number}"


def damaged(case: Case) -> tuple[str, Path]:
    """Makes the file of a case; returns how and the file."""
    draw = random.Random(f"{case.seed} {case.number}")
    how = draw.choice(list(DAMAGES))
    source = case.sources / case.source
    path = case.folder / f"{case.number}{source.suffix}"
    try:
        DAMAGES[how](draw, source, path)
    except (av.error.FFmpegError, ValueError):  # the container can't be written so
        path.unlink(missing_ok=True)
    if not path.exists() or not path.stat().st_size:
        how = "flipped"
        _flip(draw, source, path)
    return how, path


def check(case: Case) -> list[str]:
    """The findings of a case."""
    av.logging.set_level(av.logging.PANIC)
    how, path = damaged(case)
    try:
        findings = _Examination(case.sources / case.source, path, how).findings()
        if case.number % _PREPARED == 0 and not findings:
            findings = prepared(path, pictures=how in (*_SOUND_PACKETS, "packets dropped"))
    finally:
        path.unlink()
    return [f"{_name(case)}, {how}: {one}" for one in findings]


class _Examination:
    """How a file is read, compared with a plain decode of it."""

    def __init__(self, source: Path, path: Path, how: str) -> None:
        self._source, self._path, self._how = source, path, how
        self._pictures, self._times = _source_frames(source)
        # What is left of a picture that is damaged, or one that its decoder finds so, depends on
        # what was decoded before it.
        self._allowed = () if how in _SOUND_PACKETS else (_DAMAGED,)

    def findings(self) -> list[str]:
        try:
            with PyAVReader(self._path) as video:
                count = video.frame_count
                singles = [self._read(video, [number]) for number in range(count)]
                clips = [range(first, min(first + 16, count), 3) for first in range(0, count, 10)]
                together = [(ids, self._read(video, list(ids))) for ids in clips]
                times = video.times
        except DecodeError:
            return []
        expected = self._expected(count, times)
        if expected is None:
            return [f"{count} frames are counted, another number comes out"]
        findings = []
        for ids, numbers in [*zip(([n] for n in range(count)), singles, strict=True), *together]:
            for place, number in zip(ids, numbers or (), strict=False):
                if number not in (expected.get(place, number), *self._allowed):
                    findings.append(f"frame {place} of {list(ids)} is {number}")
                    findings[1:] = []
        facts = _counted(lambda: probe_file(ProbeJob(0, self._path, 0, -1, "", False)).frames)
        if facts != count and not (facts == "refused" and singles[0] is None):
            findings.append(f"probe counts {facts}, the reader {count}")
        return findings

    def _read(self, video: PyAVReader, ids: list[int]) -> list[int] | None:
        """The numbers on frames, -1 for one that is not sound; None where they are refused."""
        try:
            return [self._number(frame) for frame in video.read(ids)]
        except DecodeError:
            return None

    def _number(self, picture: Frames) -> int:
        height, width = next(iter(self._pictures.values())).shape[:2]
        if picture.shape != (height, width, 3):
            return _DAMAGED
        number = read_number(picture)
        original = self._pictures.get(number)
        if original is None or np.abs(picture.astype(np.int16) - original).mean() > _APART:
            return _DAMAGED
        return number

    def _truth(self) -> tuple[list[int], list[int | None]]:
        """The numbers as a plain decode gives them, without those of a damaged end, and times."""
        numbers: list[int] = []
        times: list[int | None] = []
        sound = 0
        for frame, picture in plain_decode(self._path):
            numbers.append(self._number(picture))
            times.append(frame.pts)
            sound = sound if frame.is_corrupt else len(numbers)
        return numbers[:sound], times[:sound]

    def _expected(self, count: int, times: list[int] | None) -> dict[int, int] | None:
        """What numbers frames have to have on them, by number or by time; None for another count.

        Where packets in mid-stream are lost, times still number the frames, and some can't be read;
        a plain decode may also exchange what is left.
        """
        truth, told = self._truth()
        places = self._reliable(truth, told)
        if times is None or (count == len(truth) and self._how in _OTHER_TIMES):
            return {p: truth[p] for p in places} if count == len(truth) else None
        numbers = {time: number for number, time in enumerate(times)}
        return {numbers[told[p]]: truth[p] for p in places if told[p] in numbers}

    def _reliable(self, truth: list[int], told: list[int | None]) -> list[int]:
        """Places in a plain decode that show what they have to: no copies of other frames.

        These stand in for lost frames: their numbers come twice, or at another time than usual.
        """
        counts = Counter(truth)
        places = [p for p, number in enumerate(truth) if _sound(number) and counts[number] == 1]
        if self._how in _OTHER_TIMES:
            return places
        apart = {}
        for place in places:
            time, before = told[place], self._times.get(truth[place])
            apart[place] = None if time is None or before is None else time - before
        usual = Counter(apart.values()).most_common(1)
        return [place for place in places if apart[place] == usual[0][0]]


def _sound(number: int | None) -> bool:
    return number is not None and number != _DAMAGED


def prepared(path: Path, *, pictures: bool) -> list[str]:
    """What is wrong with how this file is prepared.

    pictures: compare them, which damaged ones can't be: they come out differently each time.
    """
    new, partial = path.with_suffix(".new.mp4"), path.with_suffix(".partial")
    job = Job(path, new, partial, PrepareSettings(preset="ultrafast", crf=10))
    try:
        count = transcode(job).frames
    except DecodeError:
        return []
    try:
        with PyAVReader(new) as made, PyAVReader(path) as video:
            if (made.frame_count, video.frame_count) != (count, count):
                return [f"{count} frames are prepared, of {video.frame_count}"]
            everything = range(count)
            frames = [[_digits(one) for one in v.read(everything)] for v in (made, video)]
    finally:
        new.unlink()
    if not pictures or frames[0] == frames[1]:
        return []
    return [f"prepared as {frames[0]} from {frames[1]}"]


def _digits(picture: Frames) -> int:
    """The number on a picture, 0 on one that is too small or turned."""
    return read_number(picture) if picture.shape[1] > picture.shape[0] else 0


def _counted(count: Callable[[], int]) -> int | str:
    try:
        return count()
    except DecodeError:
        return "refused"


@cache
def _source_frames(source: Path) -> tuple[dict[int, Frames], dict[int, int | None]]:
    """Pictures and times of the undamaged video's frames, by the number that is on them."""
    frames = [(read_number(picture), frame.pts, picture) for frame, picture in plain_decode(source)]
    return {n: picture for n, _, picture in frames}, {n: time for n, time, _ in frames}


def plain_decode(path: Path) -> Iterator[tuple[av.VideoFrame, Frames]]:
    """All frames as FFmpeg gives them out, and their pictures."""
    # PyAV ends with an IndexError where streams appear on the way.
    faults = suppress(av.error.FFmpegError, IndexError)
    with faults, av.open(f"file:{path}", metadata_errors="replace") as file:
        stream = file.streams.best("video")
        if stream is None or stream.codec_context is None or not stream.codec_context.width:
            return
        stream.codec_context.thread_count = 1
        size = stream.codec_context.width, stream.codec_context.height
        for packet in file.demux(stream):
            if not packet.size and packet.dts is not None:
                continue
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                continue
            for frame in frames:
                picture = frame.reformat(*size, format="rgb24", interpolation="BILINEAR")
                yield frame, orientation(frame).apply(picture.to_ndarray())


def _flip(draw: random.Random, source: Path, path: Path) -> None:
    content = bytearray(source.read_bytes())
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def _overwrite(draw: random.Random, source: Path, path: Path) -> None:
    content = bytearray(source.read_bytes())
    begin = draw.randrange(len(content))
    length = min(draw.choice((4, 40, 400)), len(content) - begin)
    content[begin : begin + length] = draw.choice((bytes(length), draw.randbytes(length)))
    path.write_bytes(content)


def _truncate(draw: random.Random, source: Path, path: Path) -> None:
    content = source.read_bytes()
    path.write_bytes(content[: draw.randrange(1, len(content))])


def _behead(draw: random.Random, source: Path, path: Path) -> None:
    content = source.read_bytes()
    path.write_bytes(content[draw.randrange(1, len(content)) :])


def _cut_out(draw: random.Random, source: Path, path: Path) -> None:
    content = source.read_bytes()
    begin = draw.randrange(len(content))
    path.write_bytes(content[:begin] + content[begin + draw.choice((1, 188, 1000)) :])


def _drop(draw: random.Random, source: Path, path: Path) -> None:
    """Loses packets, at the beginning or anywhere."""
    gone = set(range(draw.randrange(_FRAMES)))
    if draw.random() < 0.5:
        gone = {draw.randrange(_FRAMES) for _ in range(draw.randrange(1, 5))}
    copy(source, path, packets=lambda place: place not in gone)


def _swap(draw: random.Random, source: Path, path: Path) -> None:
    """Exchanges two packets, times and all, one of them not far from the other."""
    packets = [*_packets(source)]
    first = draw.randrange(len(packets) - 1)
    second = min(len(packets) - 1, first + draw.randrange(1, 4))
    packets[first], packets[second] = packets[second], packets[first]
    _write(source, path, packets)


def _retime(draw: random.Random, source: Path, path: Path) -> None:
    """Gives a packet, or each from one on, other times."""
    begin, by = draw.randrange(_FRAMES), draw.randrange(-5, 6)
    whole = draw.random() < 0.5

    def change(packet: Any, place: int) -> None:
        if place == begin or (whole and place > begin):
            step = by * (packet.duration or 1)
            packet.pts = None if packet.pts is None else packet.pts + step
            packet.dts = None if packet.dts is None else packet.dts + step

    copy(source, path, change=change)


def _flag(draw: random.Random, source: Path, path: Path) -> None:
    """Takes key frames for others and others for key frames."""

    def change(packet: Any, place: int) -> None:
        packet.is_keyframe ^= draw.random() < 0.2

    copy(source, path, change=change)


@cache
def _packets(source: Path) -> list[tuple[bytes, int | None, int | None, bool]]:
    with av.open(str(source)) as container:
        return [
            (bytes(packet), packet.pts, packet.dts, packet.is_keyframe)
            for packet in container.demux(video=0)
            if packet.size
        ]


def _write(
    source: Path, path: Path, packets: list[tuple[bytes, int | None, int | None, bool]]
) -> None:
    with av.open(str(source)) as read, av.open(str(path), "w") as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        for content, pts, dts, is_key in packets:
            packet = av.Packet(content)
            packet.stream, packet.pts, packet.dts = stream, pts, dts
            packet.time_base = read.streams.video[0].time_base
            packet.is_keyframe = is_key
            write.mux(packet)


DAMAGES: Final[dict[str, Damage]] = {
    "flipped": _flip,
    "overwritten": _overwrite,
    "truncated": _truncate,
    "beheaded": _behead,
    "cut out": _cut_out,
    "packets dropped": _drop,
    "packets exchanged": _swap,
    "packets at other times": _retime,
    "packets flagged": _flag,
}
