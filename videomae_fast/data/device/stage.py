"""What was read, to clips: joined on the host, or decoded and cropped on the training device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae_fast.data.device.base import DeviceDecoder, EncodedClip
from videomae_fast.data.device.host_memory import HostMemory
from videomae_fast.data.errors import DecodeError
from videomae_fast.data.reading import ReadResult
from videomae_fast.data.views.rule import ClipShape, ViewRule

ReadResults = Sequence[ReadResult | DecodeError]


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
        self._rule, self._clip, self._device, self._decoder = rule, shape, device, decoder
        self._dtype = torch.float32 if rule.dtype == np.float32 else torch.uint8
        self._on_gpu = device.type == "cuda"
        self._stream = _stream(device) if self._on_gpu else None
        self._memory = HostMemory(pinned=self._on_gpu)

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
        if self._decoder is not None:
            self._decoder.close()

    def _make(self, results: ReadResults) -> tuple[Tensor, dict[int, DecodeError]]:
        samples = self._clip.samples
        shape = (len(results) * samples, self._clip.frames, *self._clip.size, 3)
        ready = {
            i: r for i, r in enumerate(results) if isinstance(r, ReadResult) and r.kind == "clips"
        }
        if len(ready) == sum(isinstance(result, ReadResult) for result in results):
            return self._joined(ready, samples, shape), {}
        decoded = {
            i: self._upload(result.data)
            for i, result in enumerate(results)
            if isinstance(result, ReadResult) and result.kind == "frames"
        }
        failed: dict[int, DecodeError] = {}
        encoded = {
            i: r for i, r in enumerate(results) if isinstance(r, ReadResult) and r.kind == "encoded"
        }
        if encoded:
            assert self._decoder is not None
            found = self._decoder.decode([_encoded(result) for result in encoded.values()])
            for number, frames_of in zip(encoded, found, strict=True):
                checked = self._as_told(frames_of, encoded[number])
                if isinstance(checked, DecodeError):
                    failed[number] = checked
                else:
                    decoded[number] = checked
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
                part.copy_(torch.from_numpy(_writable(ready[number].data)))
            else:
                part.zero_()
        return clips.view(self._dtype).to(self._device, non_blocking=True)

    def _upload(self, frames: NDArray[np.uint8]) -> Tensor:
        host = self._memory.take(frames.shape)
        host.copy_(torch.from_numpy(_writable(frames)))
        return host.to(self._device, non_blocking=True)

    def _as_told(self, frames: Tensor | DecodeError, result: ReadResult) -> Tensor | DecodeError:
        """The device's frames [N, H, W, 3]; an error where plans were drawn for larger ones."""
        if isinstance(frames, DecodeError):
            return frames
        height, width = frames.shape[1:3]
        if not all(self._rule.fits(plan, (height, width)) for plan in result.plans):
            return DecodeError(f"the device decoded frames of {width}x{height}, smaller than told")
        return frames


def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _encoded(result: ReadResult) -> EncodedClip:
    # A copy: the slot that it lies in is given back before a decoder has read it
    return EncodedClip(torch.from_numpy(result.data.copy()), result.ids, result.frame_count)


def _writable(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """For torch, which warns of arrays that are read-only although it only reads them."""
    return array if array.flags.writeable else array.copy()
