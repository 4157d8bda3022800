"""Decoded frames on the training device: uploaded, or decoded there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae_fast.data.device.base import DeviceDecoder, EncodedClip
from videomae_fast.data.device.host_memory import HostMemory
from videomae_fast.data.errors import DecodeError
from videomae_fast.data.reading import ReadResult
from videomae_fast.data.views.crops import Size

ReadResults = Sequence[ReadResult | DecodeError]


class DeviceFrames:
    """Brings the frames of what was read to a device. What is copied to a GPU goes through
    page-locked memory.

    Args:
        device: where they are to be.
        decoder: of the device, None where loader processes decode.
        fits: whether a plan can be followed with frames of a (height, width): a device that decodes
            may find others than the file told.
        memory: for what is uploaded; None: its own.
    """

    def __init__(
        self,
        device: torch.device,
        decoder: DeviceDecoder | None,
        fits: Callable[[Any, Size], bool],
        memory: HostMemory | None = None,
    ) -> None:
        self._device, self._decoder, self._fits = device, decoder, fits
        self._memory = memory or HostMemory(pinned=device.type == "cuda")

    def __call__(self, results: ReadResults) -> tuple[dict[int, Tensor], dict[int, DecodeError]]:
        """
        Returns:
            Of each result that has frames or a file, by its number, the frames uint8 [N, H, W, 3];
            and of those whose file the device can't decode why.
        """
        decoded = {
            i: self._upload(result.data)
            for i, result in enumerate(results)
            if isinstance(result, ReadResult) and result.kind == "frames"
        }
        encoded = {
            i: r for i, r in enumerate(results) if isinstance(r, ReadResult) and r.kind == "encoded"
        }
        failed: dict[int, DecodeError] = {}
        if encoded:
            assert self._decoder is not None
            found = self._decoder.decode([_encoded(result) for result in encoded.values()])
            for number, frames in zip(encoded, found, strict=True):
                checked = self._as_told(frames, encoded[number])
                if isinstance(checked, DecodeError):
                    failed[number] = checked
                else:
                    decoded[number] = checked
        return decoded, failed

    def close(self) -> None:
        """Gives the decoder's memory back."""
        if self._decoder is not None:
            self._decoder.close()

    def _upload(self, frames: NDArray[np.uint8]) -> Tensor:
        host = self._memory.take(frames.shape)
        host.copy_(torch.from_numpy(writable(frames)))
        return host.to(self._device, non_blocking=True)

    def _as_told(self, frames: Tensor | DecodeError, result: ReadResult) -> Tensor | DecodeError:
        """The device's frames; an error where plans were drawn for others."""
        if isinstance(frames, DecodeError):
            return frames
        height, width = frames.shape[1:3]
        if not all(self._fits(plan, (height, width)) for plan in result.plans):
            return DecodeError(f"the device decoded frames of {width}x{height}, not as told")
        return frames


def _encoded(result: ReadResult) -> EncodedClip:
    # A copy: the slot that it lies in is given back before a decoder has read it
    data = torch.from_numpy(result.data.copy())
    first, count = result.part or (0, result.frame_count)
    return EncodedClip(data, tuple(number - first for number in result.ids), count)


def writable(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """For torch, which warns of arrays that are read-only although it only reads them."""
    return array if array.flags.writeable else array.copy()
