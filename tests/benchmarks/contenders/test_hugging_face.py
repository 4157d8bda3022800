"""Hugging Face's model as a contender."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from benchmarks.common.workload import Workload
from benchmarks.contenders.base import UnavailableError, Variant
from benchmarks.contenders.build import build
from benchmarks.measure.checks import check, truth
from videomae_fast import MAEConfig

CONFIG = MAEConfig(
    image_size=32, frames=8, width=32, depth=2, heads=2, decoder_width=16, decoder_heads=1,
    decoder_depth=2,
)  # fmt: skip
needs_transformers = pytest.mark.skipif(
    find_spec("transformers") is None, reason="transformers is not installed"
)


@needs_transformers
@pytest.mark.parametrize("tables", ["as-shipped", "repaired"])
def test_it_computes_the_same(tables):
    workload = Workload(CONFIG, batch=2)
    against = truth(build("official", Variant("official"), workload, "encoder-only"))
    variant = Variant("hugging-face", tables=tables)
    contender = build("Hugging Face", variant, workload, "encoder-only")
    found = check(contender, against)
    assert found.passed, found.told()
    held = {name for name, _ in contender.model.named_buffers()}
    assert ("position_embeddings" in held) == (tables == "repaired")


def test_it_has_no_decoder_mask():
    with pytest.raises(UnavailableError, match="no decoder mask"):
        build("Hugging Face", Variant("hugging-face"), Workload(CONFIG, batch=1), "dual")
