"""What is made again in the backward pass: the same bits, and fewer bytes kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.scale.kept import Keeping, per_clip
from videomae_fast import MAEConfig, MaskedAutoencoder, Masks, MaskSpec
from videomae_fast.models.recomputing import recomputing
from videomae_fast.models.transformer import Block, set_recompute

TINY = MAEConfig(
    image_size=32, frames=4, width=32, depth=3, heads=2, decoder_width=16, decoder_depth=2,
    decoder_heads=1, layer_scale=0.1,
)  # fmt: skip


def gradients(recompute: bool, precision: torch.dtype, decoder: str) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = MaskedAutoencoder(TINY, drop_path=0.3)
    set_recompute(model, recompute)
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (4, 4, 32, 32, 3), dtype=torch.uint8, generator=generator)
    spec = MaskSpec(encoder_ratio=0.5, decoder=decoder)
    masks = Masks.from_seeds(torch.arange(4), TINY.grid, spec)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        out = model(frames, masks, gradient_scale=0.5)
    out.backward()
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {"loss": out.loss.detach(), **found}


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("decoder", ["running-cell", "random"])
def test_loss_and_gradients_are_the_same_bits(precision: torch.dtype, decoder: str) -> None:
    kept, again = (gradients(recompute, precision, decoder) for recompute in (False, True))
    assert kept.keys() == again.keys()
    assert [name for name, value in kept.items() if not torch.equal(value, again[name])] == []


def of_a_clip_of_vit_g(keeping: Keeping) -> float:
    """MB, by two encoders that are less deep: each further block keeps what the third one does."""
    giant = MAEConfig.from_size("giant")
    two, three = (per_clip(replace(giant, depth=depth), keeping) for depth in (2, 3))
    return (two + (giant.depth - 2) * (three - two)) / 1e6


def test_what_is_kept_of_a_clip_of_vit_g(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing is computed; without it Triton refuses the fake tensors, which lie on the CPU.
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert of_a_clip_of_vit_g("all") == pytest.approx(479, abs=5)
    assert of_a_clip_of_vit_g("recompute") == pytest.approx(301, abs=5)


def test_only_the_value_itself_is_forgotten() -> None:
    made = []

    def again() -> Tensor:
        made.append(1)
        return value.detach().clone()

    weight, other = (torch.ones(3, requires_grad=True) for _ in range(2))
    value = torch.arange(3.0)
    with recomputing(value, again):
        out = (value.view(3) * weight * other).sum()
    out.backward()
    assert torch.equal(weight.grad, value)  # type: ignore[arg-type]
    assert torch.equal(other.grad, value)  # type: ignore[arg-type]
    assert made == [1]
    with torch.no_grad(), recomputing(value, again):
        assert (value * weight).sum() == 3


def test_compiled_blocks_keep_what_matmuls_and_attention_give() -> None:
    """The same bits, and of widths of a token 11 in place of 16."""
    first, block = (
        Block(32, 2, 128, drop_path=0.0, layer_scale=0.1, norm_eps=1e-6) for _ in range(2)
    )
    x, branch = first(torch.randn(4, 8, 32, requires_grad=True))
    owned = {p.untyped_storage().data_ptr() for p in (*first.parameters(), *block.parameters())}
    kept: dict[int, int] = {}

    def look(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned and tensor.dim() > 2:
            kept[storage.data_ptr()] = tensor.numel()
        return tensor

    found = []
    for recompute in (False, True):
        torch.compiler.reset()
        block.recompute = block.mlp.recompute = recompute
        compiled = torch.compile(block.forward, fullgraph=True, backend="aot_eager")
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor):
            stream, rest = compiled(x, branch)
        widths = sum(kept.values()) / (4 * 8 * 32)
        loss = (stream + rest.delta * rest.scale).square().sum()
        found.append((widths, loss.detach(), torch.autograd.grad(loss, block.attn.qkv.weight)[0]))
    torch.compiler.reset()
    (all_kept, *values), (fewer, *same) = found
    assert all(torch.equal(one, other) for one, other in zip(values, same, strict=True))
    assert all_kept > 15
    assert fewer < 11.1  # and the log-sum-exp of attention
