"""DALI's video decoder: NVDEC on a GPU; on a CPU it decodes VP8, VP9 and MJPEG only.

Known of it: made-up frames instead of an error for numbers beyond the end (so EncodedClip does not
allow them), and a pipeline that is of no use any more after one bad file (so it is made anew, and
the batch is decoded file by file).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from videomae_fast.data.device.base import EncodedClip
from videomae_fast.data.errors import DecodeError
from videomae_fast.extras import install

_CPU_CODECS: Final = frozenset({"vp8", "vp9", "mjpeg"})
# Of an H100 or H200: also those of the CPU, which DALI hands to FFmpeg
_GPU_CODECS: Final = frozenset({"h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "mjpeg"})


def why_not(device: torch.device) -> str | None:
    """Why DALI can't be used on this device, or None."""
    if find_spec("nvidia") is None or find_spec("nvidia.dali") is None:
        return f"DALI is not installed: {install('dali')}"
    try:
        import nvidia.dali  # noqa: F401
    except (ImportError, OSError) as error:
        return f"DALI is installed but can't be loaded: {error}"
    if device.type == "cuda" and not torch.cuda.is_available():
        return "torch sees no GPU"
    return None


def codecs(device: torch.device) -> frozenset[str]:
    """FFmpeg's names of the codecs that can be decoded on this device."""
    return _GPU_CODECS if device.type == "cuda" else _CPU_CODECS


class DaliDecoder:
    """See :class:`~videomae_fast.data.device.base.DeviceDecoder`.

    device: "cuda" (NVDEC) or "cpu"; batch: files decoded in one go; threads: of DALI's, which
    parse the files and feed the decoder.
    """

    def __init__(self, device: torch.device, *, batch: int = 8, threads: int = 4) -> None:
        if batch < 1 or threads < 1:
            raise ValueError(f"batch ({batch}) and threads ({threads}) must be at least 1")
        self._device, self._batch, self._threads = device, batch, threads
        self._pipeline: Any = None

    def decode(self, clips: Sequence[EncodedClip]) -> list[Tensor | DecodeError]:
        found: list[Tensor | DecodeError] = []
        for first in range(0, len(clips), self._batch):
            found += self._decode(clips[first : first + self._batch])
        return found

    def close(self) -> None:
        self._pipeline = None

    def _decode(self, clips: Sequence[EncodedClip]) -> Sequence[Tensor | DecodeError]:
        try:
            return self._run(clips)
        except Exception as error:
            self._pipeline = None
            if len(clips) > 1:
                return [result for clip in clips for result in self._decode([clip])]
            # DALI reports a bad file with either, depending on how far it has prefetched
            if isinstance(error, RuntimeError | IndexError):
                return [DecodeError(f"DALI: {_reason(error)}")]
            return [DecodeError.unforeseen(error)]

    def _run(self, clips: Sequence[EncodedClip]) -> list[Tensor | DecodeError]:
        if self._pipeline is None:
            self._pipeline = self._build()
        self._pipeline.feed_input("encoded", [clip.data.numpy() for clip in clips])
        self._pipeline.feed_input("frames", [np.array(c.ids, dtype=np.int32) for c in clips])
        (decoded,) = self._pipeline.run()
        results: list[Tensor | DecodeError] = []
        for i, clip in enumerate(clips):
            # Its own buffers are used again
            if self._device.type == "cuda":
                frames = torch.utils.dlpack.from_dlpack(decoded[i]).clone()
            else:
                frames = torch.from_numpy(np.array(decoded[i]))
            if len(frames) == len(clip.ids):
                results.append(frames)
            else:
                told = f"DALI gave {len(frames)} of {len(clip.ids)} frames"
                results.append(DecodeError(told))
        if self._device.type == "cuda":
            # DALI writes into its buffers again on a stream that knows nothing of the copies
            torch.cuda.current_stream(self._device).synchronize()
        return results

    def _build(self) -> Any:
        dali: Any = import_module("nvidia.dali")
        fn, types = import_module("nvidia.dali.fn"), dali.types
        on_gpu = self._device.type == "cuda"
        index = self._device.index if on_gpu else None
        if on_gpu and index is None:
            index = torch.cuda.current_device()
        # No prefetch: what is fed is what comes out, so that a bad file is known at once
        pipeline = dali.Pipeline(
            batch_size=self._batch,
            num_threads=self._threads,
            device_id=index,
            prefetch_queue_depth=1,
            exec_dynamic=True,
        )
        with pipeline:
            encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
            frames = fn.external_source(name="frames", dtype=types.INT32, ndim=1)
            decoded = fn.decoders.video(encoded, frames=frames, device="mixed" if on_gpu else "cpu")
            pipeline.set_outputs(decoded)
        pipeline.build()
        return pipeline


def _reason(error: Exception) -> str:
    """The sentence in DALI's report that names the cause."""
    text = str(error)
    found = re.search(r"encountered:\s*(.+?)(?:\nC\+\+ context|\nCurrent pipeline|$)", text, re.S)
    cause = found.group(1) if found else text
    cause = re.sub(r'^Assert on ".*?" failed: ', "", cause.strip())
    return " ".join(cause.split())
