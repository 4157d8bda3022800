"""accelerate: under torch.compile, the official code's models and those of transformers."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from benchmarks.official.step import normalized_images
from tests.support.compiling import traced
from tests.support.hugging_face_models import needs_transformers, pixel_values, small_hugging_face
from tests.support.official_models import (
    GRID,
    SPECS,
    classifier,
    frames,
    masks_of,
    pretraining,
    weighted,
)
from videomae_fast import Masks, MaskSpec, accelerate
from videomae_fast.errors import AccelerationError


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_under_torch_compile():
    model = pretraining()
    images, (encoder_mask, decoder_mask) = normalized_images(frames()), masks_of("dual").to_bool()
    expected = model(images, encoder_mask, decoder_mask)
    accelerate(model)
    compiled = torch.compile(model, backend="eager")
    found = compiled(images, encoder_mask, decoder_mask)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(AccelerationError, match="accelerated already"):
        accelerate(compiled)


@needs_transformers
def test_hugging_face_under_torch_compile():
    model = small_hugging_face("pretraining").eval()
    mask, _ = masks_of("encoder-only").to_bool()
    expected = model(pixel_values(), mask).loss
    accelerate(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = torch.compile(model, backend="eager")(pixel_values(), mask).loss
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def small_model(name: str) -> nn.Module:
    """As shallow as can be; drop path begins with an encoder's second block."""
    if name == "official":
        return pretraining(drop_path=0.3, decoder_depth=1)
    if name == "official-classifier":
        return classifier(depth=1)
    kind = "pretraining" if name == "hugging-face" else "classification"
    return small_hugging_face(kind, num_hidden_layers=1, decoder_num_hidden_layers=1)


@pytest.mark.parametrize(
    "name",
    [
        "official",
        "official-classifier",
        pytest.param("hugging-face", marks=needs_transformers),
        pytest.param("hugging-face-classifier", marks=needs_transformers),
    ],
)
def test_compiled_whole_for_other_batches(name):
    """Frames and Masks: one graph, and one more that fits all other batches and ratios."""
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()
    model = small_model(name).train()
    accelerate(model)
    compiled = torch.compile(model, backend=traced, fullgraph=True)
    generator = torch.Generator().manual_seed(4)
    more = MaskSpec(encoder_ratio=0.75, decoder="none")
    steps = [(2, "dual", 1), (2, "dual", 1), (3, more, 2), (5, "encoder-only", 2), (4, "dual", 2)]
    for batch, spec, graphs in steps:
        masks = Masks.sample(batch, GRID, SPECS.get(spec, spec), generator=generator)
        inputs = [frames(batch)] if "classifier" in name else [frames(batch), masks]
        results = []
        for call in (model, compiled):
            model.zero_grad()
            torch.manual_seed(5)  # drop path draws
            loss = weighted(call, *inputs)
            loss.backward()
            gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
            results.append([loss.detach(), *gradients])
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert counters["stats"]["unique_graphs"] == graphs
    torch.compiler.reset()
