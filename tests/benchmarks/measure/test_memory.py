"""Peak memory, measured in a process of its own."""

from __future__ import annotations

import pytest

from benchmarks.common.workload import Workload
from benchmarks.contenders.base import Variant
from benchmarks.measure.memory import CLEAR, peak_memory
from videomae_fast import MAEConfig


@pytest.mark.skipif(not CLEAR.exists(), reason="peak memory of a process is read as Linux has it")
def test_peak_grows_with_the_batch():
    config = MAEConfig(
        image_size=64, width=64, depth=2, heads=1, decoder_width=32, decoder_heads=1,
        decoder_depth=1,
    )  # fmt: skip
    found = peak_memory(Workload(config, batch=32), Variant("official"), "dual", threads=1)
    assert found["peak_bytes"] > found["process_bytes"] + found["weights_bytes"]
    # One fp32 clip as the official loader delivers it has 0.8 MB; activations come on top.
    assert 0.5e6 < found["per_clip_bytes"] < 50e6


def test_a_failure_is_told():
    config = MAEConfig(image_size=64, width=64, depth=1, heads=1)
    with pytest.raises(RuntimeError, match="KeyError: 'nobody'"):
        peak_memory(Workload(config, batch=1), Variant("nobody"), "dual", threads=1)
