"""What was read, to clips: joined on the host, or decoded and cropped on the training device."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from videomae_fast.data.device.base import DeviceDecoder
from videomae_fast.data.device.decoders import find_device_decoder
from videomae_fast.data.device.frames import DeviceFrames, ReadResults, writable
from videomae_fast.data.device.host_memory import HostMemory
from videomae_fast.data.errors import DecodeError
from videomae_fast.data.reading import ReadResult, ReadSettings
from videomae_fast.data.views.rule import ClipShape, ViewRule

CropOn = Literal["worker", "device"]
"""Who crops clips: loader processes, or the device where they are to be."""
Settings = TypeVar("Settings", bound=ReadSettings)


class ClipStage:
    """Makes the clips of a micro-batch: [V*S, T, h, w, 3], zero where a video failed.

    rule, shape: of the clips, which are uint8 or fp32 as the rule says; device: where they are to
    be; decoder: of the device, None where loader processes decode. What is copied to a GPU goes
    through page-locked memory.

    On a GPU everything runs on a stream of its own, so that it overlaps with training.
    """

    def __init__(
        self,
        rule: ViewRule,
        shape: ClipShape,
        device: torch.device,
        decoder: DeviceDecoder | None = None,
    ) -> None:
        self._rule, self._clip, self._device = rule, shape, device
        self._dtype = torch.float32 if rule.dtype == np.float32 else torch.uint8
        self._on_gpu = device.type == "cuda"
        self._stream = new_stream(device) if self._on_gpu else None
        self._memory = HostMemory(pinned=self._on_gpu)
        self._frames = DeviceFrames(device, decoder, rule.fits, self._memory)

    def __call__(
        self, results: ReadResults
    ) -> tuple[Tensor, dict[int, DecodeError], torch.cuda.Event | None]:
        """
        Returns:
            The clips; the videos that failed on the device; and when the clips are there: a stream
            that uses them has to wait for that.
        """
        with torch.cuda.stream(self._stream):
            clips, failed = self._make(results)
            event = None
            if self._stream is not None:
                event = self._stream.record_event()
        return clips, failed, event

    def close(self) -> None:
        self._frames.close()

    def _make(self, results: ReadResults) -> tuple[Tensor, dict[int, DecodeError]]:
        samples = self._clip.samples
        shape = (len(results) * samples, self._clip.frames, *self._clip.size, 3)
        ready = {
            i: r for i, r in enumerate(results) if isinstance(r, ReadResult) and r.kind == "clips"
        }
        if len(ready) == sum(isinstance(result, ReadResult) for result in results):
            return self._joined(ready, samples, shape), {}
        decoded, failed = self._frames(results)
        clips = torch.empty(shape, dtype=self._dtype, device=self._device)
        order = sorted(decoded)
        rows = [number * samples + sample for number in order for sample in range(samples)]
        missing = sorted(set(range(len(clips))) - set(rows))
        if order:
            sources = [results[number] for number in order]
            plans = [source.plans for source in sources if isinstance(source, ReadResult)]
            videos = [decoded[number] for number in order]
            made = self._rule.make_on_device(videos, plans, self._clip)
            if not missing:
                return made, failed
            clips[torch.tensor(rows, device=self._device)] = made
        clips[torch.tensor(missing, device=self._device)] = 0
        return clips, failed

    def _joined(self, ready: dict[int, ReadResult], samples: int, shape: tuple[int, ...]) -> Tensor:
        shape = (*shape[:-1], shape[-1] * self._dtype.itemsize)
        clips = self._memory.take(shape)
        for number in range(shape[0] // samples):
            part = clips[number * samples : (number + 1) * samples]
            if number in ready:
                part.copy_(torch.from_numpy(writable(ready[number].data)))
            else:
                part.zero_()
        return clips.view(self._dtype).to(self._device, non_blocking=True)


def handed_over(
    settings: Settings, device: torch.device, crop_on: CropOn, device_decoder: str | None
) -> tuple[Settings, DeviceDecoder | None]:
    """What loader processes pass on, and what decodes it.

    Args:
        settings: how they read.
        device: where clips are to be.
        crop_on: see :func:`~videomae_fast.data.loader.pipeline.clip_loader`.
        device_decoder: the same.

    Returns:
        The settings with it, and the decoder of the device, None where they decode.

    Raises:
        ValueError: `crop_on` is another word, or there is no such decoder.
        BackendUnavailableError: the device can't use the decoder.
    """
    if crop_on not in ("worker", "device"):
        raise ValueError(f'crop_on must be "worker" or "device", not {crop_on!r}')
    if device_decoder is not None:
        kind = find_device_decoder(device_decoder, device)
        codecs = kind.codecs(device)
        return replace(settings, hand_over="encoded", codecs=codecs), kind.make(device)
    if crop_on == "device":
        return replace(settings, hand_over="frames"), None
    return settings, None


def new_stream(device: torch.device) -> torch.cuda.Stream:
    """A stream of its own on a GPU."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
