"""What a traced training step calls: attention leaves no concatenation and no sum of a bias."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.common.workload import Workload
from benchmarks.gpu.calls import Call
from benchmarks.gpu.step_model import modelled_step
from videomae_fast import MAEConfig

TINY = MAEConfig(
    image_size=32, frames=8, width=32, depth=2, heads=2, decoder_width=16, decoder_depth=2,
    decoder_heads=1,
)  # fmt: skip


@pytest.fixture(scope="module", params=["triton", "sdpa"])
def traced(request: pytest.FixtureRequest) -> list[Call]:
    return modelled_step(Workload(TINY, 2), "dual", attention=request.param)


def test_no_concatenation_and_no_sum_from_attention(traced: list[Call]) -> None:
    """What is left: masks, loss and norm sum numbers; a head's bias is added by its matmul."""
    width, decoder = TINY.width, TINY.decoder_width
    wrong = [
        call
        for call in traced
        if call.op == "aten::cat" and call.phase != "update" and call.bytes > 64
    ]
    assert wrong == []
    sums = [call.shapes for call in traced if call.op == "aten::sum" and call.phase == "backward"]
    of_qkv = [shape for shape in sums if shape.endswith((f"×{3 * width}", f"×{3 * decoder}"))]
    assert of_qkv == []
    names = Counter(call.op.partition("::")[2] for call in traced)
    blocks = TINY.depth + TINY.decoder_depth
    assert names["packed_bias"] == blocks + 1  # one more for the rows that clips share
    # Two of the last block's weight, whose queries are fewer; one of the first one's tokens
    assert names["slice_backward"] == 3
    own = names["packed_attention_backward"]
    assert own + names["packed_join"] == blocks
