"""GELU in the matmuls' epilogues: against fp64 in all dtypes, and the bytes that it leaves out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common.workload import Workload
from benchmarks.ops.cases import op_cases
from benchmarks.ops.op_case import OpCase
from tests.support.backends import FLOATS, assert_accurate, doubled, named
from videomae_fast import MAEConfig
from videomae_fast.models.transformer import Mlp, set_fused_mlp
from videomae_fast.ops import gelu_mlp
from videomae_fast.ops.registry import forced

OPS = torch.ops.videomae_fast
pytestmark = pytest.mark.usefixtures("interpreted")
# Rows, in, hidden, out: less than a block, odd, several blocks with rests, several groups of rows.
SHAPES = [(1, 3, 5, 2), (70, 33, 129, 17), (130, 65, 200, 70), (1100, 16, 130, 9)]


def inputs(shape: tuple[int, int, int, int], dtype: torch.dtype, device: str) -> tuple[Tensor, ...]:
    """x, first, bias in fp32, second."""
    torch.manual_seed(0)
    rows, width, hidden, out = shape
    x, first, second = (
        torch.randn(rows, width),
        torch.randn(hidden, width),
        torch.randn(out, hidden),
    )
    first, second = first * width**-0.5, second * hidden**-0.5
    moved = (one.to(dtype).to(device) for one in (x, first, second))
    x, first, second = moved
    return x, first, torch.randn(hidden).to(device), second


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_truth(shape, dtype, kernels, device, poisoned):
    given = inputs(shape, dtype, device)
    found = kernels.forward(named("gelu_mlp", *given))
    reference = OPS.gelu_mlp(*given, "reference")
    exact = OPS.gelu_mlp(*doubled(given), "reference")
    # The library's matmul adds up in its own order; a sum of rounded activations is off by them
    slack = (32 if dtype == torch.float32 else 4) * torch.finfo(dtype).eps
    for mine, other, true in zip(found, reference, exact, strict=True):
        assert_accurate(mine, other, true, absolute=slack)

    grad = torch.randn(found[0].shape).to(dtype).to(device)
    saved = (grad, *given, *reference[1:], True)
    got = kernels.backward(named("gelu_mlp_backward", *saved))
    theirs = OPS.gelu_mlp_backward(*saved, "reference")
    true = OPS.gelu_mlp_backward(*doubled(saved), "reference")
    for mine, other, right in zip(got, theirs, true, strict=True):
        scale = float(right.abs().max()) + 1
        assert_accurate(mine, other, right, absolute=slack * scale)


def test_it_is_the_exact_gelu(device):
    """erf and not tanh, whose difference is above the error that is allowed."""
    x = torch.linspace(-5, 5, 64, device=device)[:, None]
    one, zero = torch.ones(1, 1, device=device), torch.zeros(1, device=device)
    out = gelu_mlp(x, one, zero, one, impl="triton")
    torch.testing.assert_close(out.double(), F.gelu(x.double()), rtol=0, atol=2e-6)
    assert (out - F.gelu(x, approximate="tanh")).abs().max() > 1e-4


@pytest.mark.parametrize("dtype", FLOATS[:2], ids=str)
def test_an_mlp_is_the_same_either_way(dtype, device):
    """Under autocast too, where x and both weights are cast."""
    torch.manual_seed(0)
    mlp = Mlp(24, 40).to(device)
    x = torch.randn(2, 9, 24, device=device)
    found = []
    for fused in (False, True):
        set_fused_mlp(mlp, fused)
        leaf = x.clone().requires_grad_()
        mlp.zero_grad()
        lowered = torch.autocast(x.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
        with lowered, forced("auto", gelu_mlp="triton"):
            out = mlp(leaf)
        out.square().sum().backward()
        grads = [p.grad for p in mlp.parameters() if p.grad is not None]
        assert len(grads) == 3  # fc2's bias is not added yet
        found.append([out, leaf.grad, *grads])
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_nothing_takes_it_unless_told(device):
    assert Mlp.fused is False
    mlp = Mlp(4, 8).to(device)
    mlp.fused = mlp.recompute = True
    with pytest.raises(ValueError, match="either fused or recomputed"):
        mlp(torch.zeros(1, 2, 4, device=device))


def test_repeated_runs_are_equal(kernels, device):
    given = inputs(SHAPES[1], torch.bfloat16, device)
    out, hidden, active = kernels.forward(named("gelu_mlp", *given))
    runs = [
        kernels.backward(named("gelu_mlp_backward", out, *given, hidden, active, True))
        for _ in range(2)
    ]
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one, other)


def test_no_rows(kernels, device):
    x, *others = inputs(SHAPES[0], torch.float32, device)
    out, hidden, active = kernels.forward(named("gelu_mlp", x[:0], *others))
    assert (out.shape, hidden.shape) == ((0, 2), (0, 5))
    grads = kernels.backward(named("gelu_mlp_backward", out, x[:0], *others, hidden, active, True))
    assert not any(grad.any() for grad in grads)


def test_wrong_shapes(device):
    x, first, bias, second = inputs(SHAPES[0], torch.float32, device)
    with pytest.raises(ValueError, match="don't fit each other"):
        gelu_mlp(x, first, bias[:2], second)


@pytest.mark.without_gpu  # where the kernel was compiled, it keeps what it called
def test_a_wrong_kernel_is_caught(kernels, device, monkeypatch):
    """The slope's place taken by GELU itself."""
    given = inputs(SHAPES[1], torch.float32, device)
    _, hidden, active = OPS.gelu_mlp(*given, "reference")
    saved = (torch.ones(70, 17, device=device), *given, hidden, active, True)
    monkeypatch.setattr(kernels, "_slope", kernels._gelu)
    got = kernels.backward(named("gelu_mlp_backward", *saved))[2]
    true = OPS.gelu_mlp_backward(*doubled(saved), "reference")[2]
    assert not torch.allclose(got.double(), true, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("size", ["base", "giant"])
def test_the_bytes_that_it_leaves_out(size):
    """Beside it: forward reads the product once more, backward writes and reads a gradient more."""
    config = MAEConfig.from_size(size)
    cases = op_cases(Workload(config, 2, device="meta"), torch.bfloat16)
    found = {(case.op, case.where): case for case in cases}

    def of(op: str) -> OpCase:
        return found[op, "encoder"]

    wide = of("bias_gelu").bytes // 2
    fc1, fc1_back = (found[op, "encoder, fc1"] for op in ("linear", "linear_backward"))
    # fc2 has the shapes of fc1, turned round: the same bytes
    apart = 2 * fc1.bytes + of("bias_gelu").bytes
    apart_back = 2 * fc1_back.bytes + of("bias_gelu_backward").bytes
    assert apart - of("gelu_mlp").bytes == wide
    assert apart_back - of("gelu_mlp_backward").bytes == 2 * wide
