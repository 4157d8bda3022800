"""torchcodec's CUDA decoder: NVDEC through FFmpeg's libraries of the system."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from videomae_fast.data.decoders import torchcodec
from videomae_fast.data.device.base import EncodedClip
from videomae_fast.data.errors import DecodeError

_CODECS: Final = frozenset({"h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "mjpeg"})


def why_not(device: torch.device) -> str | None:
    """Why torchcodec can't decode on this device, or None."""
    if device.type != "cuda":
        return f"it decodes on a GPU, not on {device} (there, decoder 'torchcodec' serves)"
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    return torchcodec.why_not()


def codecs(device: torch.device) -> frozenset[str]:
    """FFmpeg's names of what can be decoded; what NVDEC lacks it decodes on the CPU."""
    return _CODECS


class TorchCodecCudaDecoder:
    """See :class:`~videomae_fast.data.device.base.DeviceDecoder`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def decode(self, clips: Sequence[EncodedClip]) -> list[Tensor | DecodeError]:
        return [self._decode(clip) for clip in clips]

    def close(self) -> None:
        """Nothing is held between files: torchcodec keeps its decoders itself."""

    def _decode(self, clip: EncodedClip) -> Tensor | DecodeError:
        from torchcodec.decoders import VideoDecoder

        try:
            with torchcodec.translated():
                decoder = VideoDecoder(
                    clip.data, dimension_order="NHWC", device=self._device, seek_mode="exact"
                )
                frames: Tensor = decoder.get_frames_at(list(clip.ids)).data
        except DecodeError as error:
            return error
        except Exception as error:
            return DecodeError.unforeseen(error)
        return frames
