"""fp8 in a model: which blocks, the same function with every option, and its errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from videomae_fast import MAEConfig, MaskedAutoencoder, Masks, MaskSpec
from videomae_fast.errors import UsageError
from videomae_fast.models.fp8 import MINIMUM_WIDTH, set_fp8
from videomae_fast.models.transformer import Block, Mlp, set_recompute

WIDTH = 64
TINY = MAEConfig(
    image_size=32, frames=4, width=WIDTH, depth=3, heads=2, decoder_width=16, decoder_depth=2,
    decoder_heads=1, layer_scale=0.1,
)  # fmt: skip


def built(fp8: bool, config: MAEConfig = TINY, **options: bool) -> MaskedAutoencoder:
    torch.manual_seed(0)
    model = MaskedAutoencoder(config, drop_path=0.3, **options)
    set_fp8(model, fp8, minimum_width=WIDTH)
    return model


def results(
    model: MaskedAutoencoder, precision: torch.dtype = torch.bfloat16, decoder: str = "running-cell"
) -> dict[str, Tensor]:
    """The loss and all gradients."""
    torch.manual_seed(1)
    frames = torch.randint(0, 256, (4, 4, 32, 32, 3), dtype=torch.uint8)
    spec = MaskSpec(encoder_ratio=0.5, decoder=decoder)
    masks = Masks.from_seeds(torch.arange(4), TINY.grid, spec)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        out = model(frames, masks, gradient_scale=0.5, clip_seeds=torch.arange(4))
    out.backward()
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {"loss": out.loss.detach(), **found}


class Calls(TorchDispatchMode):
    """Names of this library's ops, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "videomae_fast":
            self.names.append(func._schema.name.partition("::")[2])
        return func(*args, **(kwargs or {}))


@contextmanager
def calls() -> Iterator[list[str]]:
    with Calls() as mode:
        yield mode.names


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Of all gradients of the encoder's blocks together, relative."""
    names = [name for name in other if name.startswith("encoder.blocks")]
    difference = sum(float((one[n].float() - other[n].float()).square().sum()) for n in names)
    return (difference / sum(float(other[n].float().square().sum()) for n in names)) ** 0.5


def test_gradients_against_fp32() -> None:
    """Within 6 % together, 10 % each; other dtypes' errors beside that."""
    exact = results(built(False), torch.float32)
    emulated, half = results(built(True), torch.float32), results(built(True))
    bf16 = results(built(False))
    assert exact.keys() == emulated.keys() == half.keys()
    assert apart(bf16, exact) < 0.015
    for found in (emulated, half):
        assert 0.01 < apart(found, exact) < 0.06
        for name, true in exact.items():
            error = float((found[name].float() - true).norm() / true.norm())
            assert error < (1e-3 if name == "loss" else 0.1), name


def test_only_wide_blocks_have_it_and_activations_are_rounded_where_they_are_made() -> None:
    """All six norms and three GELUs of the encoder: no pass over activations does that alone."""
    model = built(True)
    for block in model.modules():
        if isinstance(block, Block):
            assert block.fp8 == block.attn.fp8 == block.mlp.fp8 == (block.attn.q_bias.numel() > 16)
    with calls() as names:
        results(model)
    assert names.count("fp8_linear") == names.count("fp8_linear_backward") == 9
    assert names.count("add_layer_norm_fp8") == names.count("bias_gelu_fp8") + 3 == 6
    assert "quantize_rows" not in names  # but within fp8_linear: of weights and gradients
    set_fp8(model, False)
    with calls() as names:
        results(model)
    assert not any("fp8" in name or name == "quantize_rows" for name in names)


@pytest.mark.parametrize("decoder", ["running-cell", "random"])
def test_recomputing_gives_the_same_bits(decoder: str) -> None:
    kept, again = built(True), built(True)
    set_recompute(again, True)
    one = results(kept, decoder=decoder)
    with calls() as names:
        other = results(again, decoder=decoder)
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []
    assert names.count("bias_gelu_fp8") == 2 * 3, "GELU's output was kept"
    assert names.count("add_layer_norm_fp8") == 2 * 6, "normalised tokens were kept"


def test_checkpointing_gives_the_same_bits() -> None:
    one, other = results(built(True)), results(built(True, activation_checkpointing=True))
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []


def test_compiled_it_is_the_eager_model() -> None:
    model = built(True, replace(TINY, depth=2, decoder_depth=1))  # each layer takes seconds
    eager = results(model)
    model.zero_grad()
    torch.compiler.reset()  # other tests' sizes would make these symbols, which takes long
    model.compile(backend="aot_eager")
    compiled = results(model)
    assert apart(compiled, eager) < 0.015


def test_a_narrow_stack_too_where_all_blocks_are_wide_enough() -> None:
    """Queries of the last block, and tokens that clips share, which decoders have."""
    model = built(False)
    plain = results(model, torch.float32)
    model.zero_grad()
    set_fp8(model, True, minimum_width=16)
    assert model.decoder.blocks[0].fp8
    assert apart(results(model, torch.float32), plain) < 0.1


def test_weights_are_saved_as_ever() -> None:
    plain, fp8 = built(False).state_dict(), built(True).state_dict()
    assert {n: (t.dtype, t.shape) for n, t in plain.items()} == {
        n: (t.dtype, t.shape) for n, t in fp8.items()
    }


def test_where_it_can_not_be_it_is_refused() -> None:
    assert MINIMUM_WIDTH == 1280
    model = MaskedAutoencoder(TINY)
    with pytest.raises(UsageError, match=r"at least 1280 wide, as ViT-H's .* are 64 at most"):
        set_fp8(model, True)
    set_fp8(model, False)
    odd = MaskedAutoencoder(MAEConfig(**{**TINY.to_dict(), "width": 72}))
    with pytest.raises(UsageError, match="multiples of 16, and a block's tokens are 72 wide"):
        set_fp8(odd, True, minimum_width=64)
    odd = MaskedAutoencoder(MAEConfig(**{**TINY.to_dict(), "mlp_ratio": 4.1}))
    with pytest.raises(UsageError, match="multiples of 16, and a block's MLP are 262 wide"):
        set_fp8(odd, True, minimum_width=64)
    assert not any(block.fp8 for block in odd.modules() if isinstance(block, Block))
    mlp = Mlp(16, 32)
    mlp.fused = mlp.fp8 = True
    with pytest.raises(ValueError, match="either fused or recomputed, or in fp8"):
        mlp(torch.zeros(1, 2, 16))
