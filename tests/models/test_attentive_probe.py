"""The attentive probe against vjepa2's."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from videomae_fast.models.attentive_probe import AttentiveProbe


def test_pooled_logits_loss_and_every_gradient_are_vjepas(golden: Any) -> None:
    data = golden("downstream_attentive_probe")
    info = json.loads(data.metadata["info"])
    tokens = data["tokens"]
    probe = AttentiveProbe(
        tokens.shape[-1], info["num_heads"], info["num_classes"], depth=info["depth"]
    )
    probe.load_state_dict(data.under("param/"))
    torch.testing.assert_close(probe.pooled(tokens), data["pooled"][:, 0], atol=1e-5, rtol=1e-5)
    logits = probe(tokens)
    torch.testing.assert_close(logits, data["logits"], atol=1e-5, rtol=1e-5)
    loss = F.cross_entropy(logits, data["labels"])
    torch.testing.assert_close(loss, data["loss"], atol=1e-6, rtol=1e-6)
    loss.backward()
    norms = {
        name: each.grad.norm() for name, each in probe.named_parameters() if each.grad is not None
    }
    expected = data.under("grad_norm/")
    assert norms.keys() == expected.keys() == set(info["params"])
    for name, norm in norms.items():
        torch.testing.assert_close(norm, expected[name], atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"heads": 3}, "width 32 is no multiple of 3 heads"),
        ({"depth": 0}, "depth must be at least 1, not 0"),
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
    ],
)
def test_refusals(changed: dict[str, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        AttentiveProbe(**{"width": 32, "heads": 4, "num_classes": 2, **changed})  # type: ignore[arg-type]


def test_one_block_is_the_query_alone() -> None:
    probe = AttentiveProbe(8, 2, 3, depth=1)
    assert not any(name.startswith("pooler.blocks") for name, _ in probe.named_parameters())
    assert probe(torch.randn(2, 5, 8)).shape == (2, 3)
