"""The native ops in bf16: what they round, mixed dtypes, and a training step with them."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from tests.support import library
from tests.support.backends import assert_accurate
from videomae_fast import MAEConfig, MaskedAutoencoder, Masks, MaskSpec
from videomae_fast.ops import attention, bias_gelu
from videomae_fast.ops.registry import forced, native_missing

OPS = torch.ops.videomae_fast
FP32, BF16 = torch.float32, torch.bfloat16
CONFIG = MAEConfig(
    image_size=64, frames=8, width=64, depth=2, heads=2, decoder_width=32, decoder_heads=1,
    decoder_depth=2,
)  # fmt: skip
pytestmark = pytest.mark.without_gpu
native = pytest.mark.skipif(native_missing() is not None, reason=str(native_missing()))


@native
def test_rounding_is_torchs():
    """To nearest, ties to even, overflow to infinity; NaN of either sign stays one."""
    halves = torch.arange(0x3F80_0000, 0x3F90_0000, 0x2000, dtype=torch.int32).view(FP32)
    odd = torch.tensor([0.0, -0.0, 3.4e38, -3.4e38, 1e-40, float("inf"), float("-inf")])
    values = torch.cat([halves, -halves, halves.nextafter(odd[:1]), odd])
    nan = torch.tensor([0x7FFF_FFFF, 0x7FC0_0000, 0x7F80_0001, -1, -0x0040_0000])
    for x in (values, nan.to(torch.int32).view(FP32)):
        # Statistics 0 and 1, so that the gradient of the stream passes as it is
        none, zeros, ones = [None] * 4, torch.zeros(1), torch.ones(1)
        stream = torch.zeros(len(x), 1)
        saved = (torch.zeros_like(stream), x[:, None], stream, zeros.expand(len(x)), stream[:, 0])
        low = [one.to(BF16) if one.ndim == 2 else one for one in saved]
        low[1] = x[:, None].to(BF16)
        kept = library.add_layer_norm_backward(*low, ones, *none, False)[0]
        wide = library.add_layer_norm_backward(low[0], saved[1], *low[2:], ones, *none, False)[0]
        torch.testing.assert_close(kept, x[:, None].to(BF16), equal_nan=True, rtol=0, atol=0)
        torch.testing.assert_close(wide, x[:, None].to(BF16), equal_nan=True, rtol=0, atol=0)


@native
@pytest.mark.parametrize(("of_x", "of_delta", "of_vectors"), [*product((FP32, BF16), repeat=3)])
def test_layer_norm_of_mixed_dtypes(of_x, of_delta, of_vectors):
    torch.manual_seed(0)
    x, delta = (3 * torch.randn(2, 37, 70) for _ in range(2))
    x, delta = x.to(of_x), delta.to(of_delta)
    vectors = [torch.randn(70).to(of_vectors) for _ in range(4)]
    arguments = (x, delta, *vectors, torch.tensor([0.5, 2.0]), 1e-6)
    mine, theirs = (OPS.add_layer_norm(*arguments, impl) for impl in ("native", "reference"))
    if of_x == BF16:  # rounded once, from fp32
        assert (mine[1] == theirs[1]).float().mean() > 0.99
    for got, expected in zip(mine, theirs, strict=True):
        assert got.dtype == expected.dtype
        assert_accurate(got, expected, expected, absolute=4e-6 if of_x == FP32 else 1e-2)
    for of_grad in {of_x, FP32}:
        grads = [torch.randn(2, 37, 70).to(of_grad) for _ in range(2)]
        saved = (*grads, *theirs[1:], vectors[0], delta, *vectors[2:], arguments[6], True)
        mine_back, back = (
            OPS.add_layer_norm_backward(*saved, impl) for impl in ("native", "reference")
        )
        for got, expected in zip(mine_back, back, strict=True):
            assert got.dtype == expected.dtype
            assert_accurate(got, expected, expected, absolute=3e-4)


@native
def test_gelu_and_attention_of_mixed_dtypes():
    torch.manual_seed(0)
    x, bias = torch.randn(3, 50).to(BF16), torch.randn(50)
    for of_bias, of_grad in product((FP32, BF16), repeat=2):
        saved = (torch.randn(3, 50).to(of_grad), x, bias.to(of_bias))
        mine, theirs = (OPS.bias_gelu_backward(*saved, one) for one in ("native", "reference"))
        for got, expected in zip(mine, theirs, strict=True):
            assert got.dtype == expected.dtype
            assert_accurate(got, expected, expected, absolute=1e-6)
    assert bias_gelu(x, bias, impl="native").dtype == BF16
    head = torch.randn(2, 5, 2, 8)
    out = attention(head.to(BF16), head, head.to(BF16), impl="native")
    expected = attention(head.to(BF16), head, head.to(BF16), impl="reference")
    assert out.dtype == BF16
    torch.testing.assert_close(out, expected, rtol=2**-7, atol=1e-6)


@native
def test_every_native_op_takes_part_in_a_step_in_bf16():
    """Weights and their gradients are fp32, and the gradient is fp32's but for rounding."""
    torch.manual_seed(0)
    model = MaskedAutoencoder(CONFIG)
    frames = torch.randint(0, 256, (2, 8, 64, 64, 3), dtype=torch.uint8)
    masks = Masks.sample(2, CONFIG.grid, MaskSpec())
    found = {}
    for low in (False, True):
        model.zero_grad()
        # An op that has a native version and can't use it on its arguments raises here
        with forced("native"), torch.autocast("cpu", BF16, enabled=low):
            loss = model(frames, masks).loss
        loss.backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
        assert {g.dtype for g in gradients.values()} == {FP32}
        found[low] = float(loss.detach()), torch.cat([g.flatten() for g in gradients.values()])
    assert {p.dtype for p in model.parameters()} == {FP32}
    assert found[True][0] == pytest.approx(found[False][0], rel=2e-3)
    assert found[True][0] != found[False][0]
    assert (found[True][1] - found[False][1]).norm() < 5e-2 * found[False][1].norm()
