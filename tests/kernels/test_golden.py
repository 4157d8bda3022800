"""The official values, with every op that has a Triton kernel forced to it."""

from __future__ import annotations

from typing import Any

import pytest

from videomae_fast import MAEConfig, MaskedAutoencoder, Masks
from videomae_fast.interop.weights import load_into
from videomae_fast.ops._dispatch import forced


@pytest.mark.parametrize("name", ["pretrain_tiny_dual", "pretrain_tiny_patch14_dual"])
def test_loss_and_every_gradient(name: str, golden: Any, device: str) -> None:
    data = golden(name)
    config = MAEConfig(**data.shape)
    model = MaskedAutoencoder(config)
    load_into(model, data.under("param/"))
    model.to(device)
    masks = Masks.from_bool(data["encoder_mask"], data.get("decoder_mask"), grid=config.grid)
    with forced("triton"):
        output = model(data["frames"].to(device), masks.to(device))
        output.loss.backward()
    assert float(output.loss.detach()) == pytest.approx(float(data["loss"]), rel=1e-5)
    gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
    for key, norm in data.under("gradnorm/").items():
        assert float(gradients[key].norm()) == pytest.approx(float(norm), rel=1e-4), key
