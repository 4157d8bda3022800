"""ONNX export of an accelerated model: the model's own code is exported."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from videomae_fast import accelerate


class _Logits(nn.Module):
    """One tensor out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, clips: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=clips).logits
        return logits


@pytest.mark.parametrize("dynamo", [True, False], ids=["exporter", "tracing"])
def test_an_accelerated_model_is_exported_as_it_was(dynamo: bool, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    torch.manual_seed(0)
    config = VideoMAEConfig(
        image_size=32, num_frames=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, num_labels=5,
    )  # fmt: skip
    model = VideoMAEForVideoClassification(config).eval()
    clips = torch.randn(1, 4, 3, 32, 32)
    with torch.no_grad():
        wanted = model(clips).logits.numpy()
        accelerate(model)
    file = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters, about each other
        torch.onnx.export(_Logits(model).eval(), (clips,), file, dynamo=dynamo)
    assert {node.domain for node in onnx.load(file).graph.node} == {""}
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: clips.numpy()})
    assert np.abs(found - wanted).max() < 1e-5
