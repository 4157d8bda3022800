"""Who reads videos: the official path, and ours by decoder, or from the cache, and place."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import default_collate

from benchmarks.measure.timing import synchronize
from benchmarks.official.reading import BoxOf, OfficialReader, OfficialSamples
from benchmarks.reading.material import CACHED, PREPARED, RAW
from videomae_fast.data.cache import CachedVideos
from videomae_fast.data.decoders import DECODERS
from videomae_fast.data.device.decoders import NAMES, find_device_decoder
from videomae_fast.data.device.stage import ClipStage
from videomae_fast.data.errors import DecodeError
from videomae_fast.data.reading import ClipRequest, ReadResult, ReadSettings, read
from videomae_fast.errors import BackendUnavailableError, VideoMAEFastError

CORE = "core"


@dataclass(frozen=True)
class Views:
    """What was read of some requests, in their order.

    Attributes:
        pixels: of each request, uint8 [S, T, h, w, 3], before normalisation.
        ids: frame numbers of each.
        boxes: (x, y, width, height) of the S samples of each.
    """

    pixels: list[NDArray[np.uint8]]
    ids: list[tuple[int, ...]]
    boxes: list[tuple[BoxOf, ...]]


@dataclass(frozen=True)
class Parts:
    """Seconds from files to a batch where the training loop takes it.

    Attributes:
        decode: of a core, until there are frames (or, for a device that decodes, the file).
        views: of what makes the views, a core or the device.
        join: until they are one batch on the device.
    """

    decode: float
    views: float
    join: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.decode + self.views + self.join


class Timed(Protocol):
    """Reads requests of one form of the videos, to be timed.

    Attributes:
        name: what the tables call it.
        forms: of the videos that it reads.
        place: "core", or the device that makes the views.
        converts: whether YUV becomes RGB by other arithmetic than that of the CPU's decoders.
    """

    name: str
    forms: tuple[str, ...]
    place: str
    converts: bool

    def seconds(self, requests: Sequence[ClipRequest]) -> Parts:
        """Reads the requests to one batch."""
        ...

    def close(self) -> None: ...


class Contender(Timed, Protocol):
    """One whose views can be compared, too."""

    def views(self, requests: Sequence[ClipRequest]) -> Views:
        """What :meth:`seconds` reads; not timed."""
        ...


class Official:
    """decord, PIL, fp32, on one core: see :mod:`benchmarks.official.reading`."""

    name, place, converts = "official", CORE, False
    forms: tuple[str, ...] = (RAW, PREPARED)

    def __init__(self, reading: ReadSettings, device: torch.device) -> None:
        self._read, self._device = OfficialReader(reading), device

    def seconds(self, requests: Sequence[ClipRequest]) -> Parts:
        found = [self._read(request) for request in requests]
        begin = time.perf_counter()
        self._batch(found)
        return Parts(
            sum(samples.decode_seconds for samples in found),
            sum(samples.view_seconds for samples in found),
            time.perf_counter() - begin,
        )

    def _batch(self, found: Sequence[OfficialSamples]) -> list[torch.Tensor]:
        """Clips and both masks, collated as the loader does, on the device."""
        samples = [sample for video in found for sample in video.samples]
        parts: list[torch.Tensor] = default_collate(samples)
        if self._device.type == "cuda":
            parts = [part.pin_memory().to(self._device, non_blocking=True) for part in parts]
        synchronize(self._device)
        return parts

    def views(self, requests: Sequence[ClipRequest]) -> Views:
        found = [self._read(request) for request in requests]
        pixels = [samples.pixels() for samples in found]
        return Views(pixels, [f.ids for f in found], [f.boxes for f in found])

    def close(self) -> None:
        """Holds nothing."""


class OnCore:
    """Ours on one core: a decoder, and all views of a video in one call of the native op."""

    place, converts = CORE, False

    def __init__(self, reading: ReadSettings, device: torch.device) -> None:
        self.name, self.forms = _name_and_forms(reading)
        self.reading, self._device = reading, device
        self._stage = ClipStage(reading.rule, reading.shape, device)
        self._slots: list[NDArray[np.uint8]] = []

    def seconds(self, requests: Sequence[ClipRequest]) -> Parts:
        pieces = [
            read(request, self.reading, partial(self._room, place))
            for place, request in enumerate(requests)
        ]
        begin = time.perf_counter()
        self._stage(pieces)
        synchronize(self._device)
        return Parts(
            sum(piece.decode_seconds for piece in pieces),
            sum(piece.crop_seconds for piece in pieces),
            time.perf_counter() - begin,
        )

    def views(self, requests: Sequence[ClipRequest]) -> Views:
        pieces = [read(request, self.reading) for request in requests]
        # Boxes are handed over only with frames that are still to be cropped
        _require_hits(pieces, self.reading)
        framed = [read(request, replace(self.reading, hand_over="frames")) for request in requests]
        return Views([p.data for p in pieces], [p.ids for p in pieces], [p.plans for p in framed])

    def close(self) -> None:
        self._stage.close()

    def _room(self, place: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Memory that is used again for the next batch, as a loader process has it."""
        while len(self._slots) <= place:
            self._slots.append(np.empty(shape, dtype=np.uint8))
        return self._slots[place].reshape(shape)


class OnDevice:
    """Ours with a device that crops, and with ``device_decoder`` decodes, too."""

    def __init__(
        self, reading: ReadSettings, device: torch.device, device_decoder: str | None = None
    ) -> None:
        self.place, self.converts = str(device), device_decoder is not None
        self._device = device
        decoder = None
        if device_decoder is None:
            name, self.forms = _name_and_forms(reading)
            self.name = f"{name}, crops on the device"
            self._reading = replace(reading, hand_over="frames")
        else:
            kind = find_device_decoder(device_decoder, device)
            decoder = kind.make(device)
            self.name, self.forms = f"ours, {device_decoder}", (RAW, PREPARED)
            self._reading = replace(reading, hand_over="encoded", codecs=kind.codecs(device))
        self._stage = ClipStage(reading.rule, reading.shape, device, decoder)

    def seconds(self, requests: Sequence[ClipRequest]) -> Parts:
        begin = time.perf_counter()
        pieces = self._pieces(requests)
        there = time.perf_counter()
        self._make(pieces)
        return Parts(there - begin, time.perf_counter() - there)

    def views(self, requests: Sequence[ClipRequest]) -> Views:
        pieces = self._pieces(requests)
        clips = self._make(pieces).cpu().numpy()
        pixels = list(clips.reshape(len(pieces), self._reading.samples, *clips.shape[1:]))
        return Views(pixels, [p.ids for p in pieces], [p.plans for p in pieces])

    def close(self) -> None:
        self._stage.close()

    def _pieces(self, requests: Sequence[ClipRequest]) -> list[ReadResult]:
        pieces = [read(request, self._reading) for request in requests]
        for request, piece in zip(requests, pieces, strict=True):
            if piece.kept_back is not None:
                raise VideoMAEFastError(f"{request.file.name}: {piece.kept_back}")
        _require_hits(pieces, self._reading)
        return pieces

    def _make(self, pieces: Sequence[ReadResult]) -> torch.Tensor:
        clips, failed, _ = self._stage(pieces)
        synchronize(self._device)
        for error in failed.values():
            raise error
        return clips


def _name_and_forms(reading: ReadSettings) -> tuple[str, tuple[str, ...]]:
    if reading.cache is not None:
        return "ours, cache", (CACHED,)
    return f"ours, {reading.decoder}", (RAW, PREPARED)


def _require_hits(pieces: Sequence[ReadResult], reading: ReadSettings) -> None:
    """Checks that a cache was read where one was to be read.

    Raises:
        VideoMAEFastError: a decoder was.
    """
    hits = sum(piece.cached.hits for piece in pieces if piece.cached is not None)
    if reading.cache is not None and hits < len(pieces):
        raise VideoMAEFastError(f"{hits} of {len(pieces)} videos came from the cache")


def contenders(
    reading: ReadSettings,
    device: torch.device,
    device_decoders: Sequence[str],
    cache: CachedVideos | None = None,
) -> tuple[list[Contender], dict[str, str]]:
    """All that can run here, the official path first; and the others, with the reason."""
    found: list[Contender] = [Official(reading, device)]
    absent: dict[str, str] = {}
    for name, decoder in DECODERS.items():
        why = decoder.why_not()
        if why is None:
            found.append(OnCore(replace(reading, decoder=name), device))
        else:
            absent[f"ours, {name}"] = why
    cached = replace(reading, cache=cache)
    if cache is not None:
        found.append(OnCore(cached, device))
    if device.type == "cuda":
        found.append(OnDevice(reading, device))
        if cache is not None:
            found.append(OnDevice(cached, device))
    for name in device_decoders:
        try:
            found.append(OnDevice(reading, device, name))
        except BackendUnavailableError as error:
            absent[f"ours, {name}"] = str(error)
    return found, absent


def default_device_decoders(device: torch.device) -> tuple[str, ...]:
    """All of them on a GPU. On a CPU there is DALI's for VP8, VP9 and MJPEG only, so none."""
    return NAMES if device.type == "cuda" else ()


@dataclass(frozen=True)
class Comparison:
    """How far one contender is from the official path.

    Attributes:
        ids: whether the frame numbers are the same.
        boxes: whether the crops are.
        most: the largest difference of two pixels, in grey levels.
        mean: the mean difference.
    """

    ids: bool
    boxes: bool
    most: int
    mean: float

    def passed(self, converts: bool) -> bool:
        """Within 1 grey level; another conversion from YUV may be 3 apart in the mean."""
        return self.ids and self.boxes and (self.mean <= 3 if converts else self.most <= 1)


def compare(truth: Views, found: Views) -> Comparison:
    """What two contenders read of the same requests, set side by side.

    Raises:
        DecodeError: another number or shape of views.
    """
    shapes = [[pixels.shape for pixels in side.pixels] for side in (truth, found)]
    if shapes[0] != shapes[1]:
        raise DecodeError(f"views of {shapes[1]}, not {shapes[0]}")
    apart = [
        np.abs(a.astype(np.int16) - b.astype(np.int16))
        for a, b in zip(truth.pixels, found.pixels, strict=True)
    ]
    return Comparison(
        truth.ids == found.ids,
        truth.boxes == found.boxes,
        max(int(one.max()) for one in apart),
        float(np.mean([one.mean() for one in apart])),
    )
