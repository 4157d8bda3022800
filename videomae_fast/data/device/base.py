"""The contract of decoders that work on the training device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from videomae_fast.data.errors import DecodeError


@dataclass(frozen=True)
class EncodedClip:
    """A video file in memory and the frames that are wanted of it.

    data: uint8 [bytes], on the CPU, a whole file, maybe of a part of the video; ids: frame numbers
    of the file in presentation order, repetitions allowed; frame_count: of the file, by a scan on
    the CPU.

    Raises ``ValueError`` for a number beyond the end: DALI makes up a frame for it.
    """

    data: Tensor
    ids: tuple[int, ...]
    frame_count: int

    def __post_init__(self) -> None:
        if not all(0 <= number < self.frame_count for number in self.ids):
            raise ValueError(f"frames {self.ids} of a video of {self.frame_count} frames")


class DeviceDecoder(Protocol):
    """Decodes clips of several files at once.

    It holds what is slow to start (a GPU decoder takes some 300 ms), so one lives as long as a run.
    """

    def decode(self, clips: Sequence[EncodedClip]) -> list[Tensor | DecodeError]:
        """uint8 [T, H, W, 3] on the device for each clip, or why it can't be decoded.

        One bad file does not take the others with it.
        """
        ...

    def close(self) -> None:
        """Gives the device's memory back."""
        ...


@dataclass(frozen=True)
class DeviceDecoderKind:
    """A decoder that can be asked for by name.

    make: for a device; why_not: why it can't be used on that device, or None; codecs: FFmpeg's
    names of what it decodes on that device.
    """

    name: str
    make: Callable[[torch.device], DeviceDecoder]
    why_not: Callable[[torch.device], str | None]
    codecs: Callable[[torch.device], frozenset[str]]
