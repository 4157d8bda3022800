"""Which decoders there are for the training device; this imports none of their libraries."""

from __future__ import annotations

from typing import Final

import torch

from videomae_fast.data.device import dali, torchcodec_cuda
from videomae_fast.data.device.base import DeviceDecoderKind
from videomae_fast.errors import BackendUnavailableError


def device_decoder_kinds() -> dict[str, DeviceDecoderKind]:
    """By name."""
    return {
        "dali": DeviceDecoderKind("dali", dali.DaliDecoder, dali.why_not, dali.codecs),
        "torchcodec-cuda": DeviceDecoderKind(
            "torchcodec-cuda",
            torchcodec_cuda.TorchCodecCudaDecoder,
            torchcodec_cuda.why_not,
            torchcodec_cuda.codecs,
        ),
    }


NAMES: Final = ("dali", "torchcodec-cuda")


def find_device_decoder(name: str, device: torch.device) -> DeviceDecoderKind:
    """The decoder called ``name``.

    Raises ``ValueError`` for an unknown name, :class:`BackendUnavailableError` with the reason for
    one that can't be used on ``device``.
    """
    kinds = device_decoder_kinds()
    if name not in kinds:
        raise ValueError(f"device decoder {name!r} is not one of {', '.join(kinds)}")
    reason = kinds[name].why_not(device)
    if reason is not None:
        raise BackendUnavailableError(f"decoder {name!r} can't be used: {reason}")
    return kinds[name]
