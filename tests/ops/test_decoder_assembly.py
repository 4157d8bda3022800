"""decoder_assembly with every backend: against fp64 truths and the reference of a dtype."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.support.backends import FLOATS, KERNELS, assert_accurate, doubled, same_bits, with_dtypes
from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import decoder_assembly

pytestmark = pytest.mark.usefixtures("poisoned")
OPS = torch.ops.videomae_fast
# batch, tokens, visible, hidden, width: one of each, odd, wider than a tile, nothing hidden or seen
SHAPES = [(1, 1, 1, 1, 1), (2, 9, 3, 5, 192), (3, 21, 4, 17, 48), (2, 6, 3, 0, 20), (2, 6, 0, 5, 7)]


def inputs(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> list[Tensor]:
    """visible, mask_token (fp32, as under autocast), positions, visible_index, decoder_index."""
    b, n, v, m, d = shape
    generator = torch.Generator().manual_seed(sum(shape))
    tensors = [
        torch.randn(b, v, d, generator=generator).to(dtype),
        torch.randn(1, 1, d, generator=generator),
        torch.randn(n, d, generator=generator),
        torch.randint(n, (b, v), generator=generator, dtype=torch.int32),
        torch.randint(n, (b, m), generator=generator, dtype=torch.int32),
    ]
    return [tensor.to(device) for tensor in tensors]


@pytest.mark.parametrize(("impl", "dtype"), with_dtypes(FLOATS[:2]))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(impl: str, shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    tensors = inputs(shape, dtype, device)
    out = decoder_assembly(*tensors, impl=impl)
    reference = decoder_assembly(*tensors, impl="reference")
    truth = decoder_assembly(*doubled(tensors), impl="reference")
    assert_accurate(out, reference, truth)
    assert torch.equal(out, decoder_assembly(*tensors, impl=impl))


@pytest.mark.parametrize(
    ("impl", "dtype", "mask_dtype"),
    [
        pytest.param(*case.values, mask, marks=case.marks, id=f"{case.id}-{mask}")
        for mask in (torch.float32, torch.bfloat16)
        for case in with_dtypes(FLOATS[:2] if mask == torch.float32 else [])
    ],
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_backward(
    impl: str, shape: tuple[int, ...], dtype: torch.dtype, mask_dtype: torch.dtype, device: str
) -> None:
    b, _, v, m, d = shape
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(b, v + m, d, generator=generator).to(device, dtype)
    seen, mask = OPS.decoder_assembly_backward(grad, v, mask_dtype, impl)
    _, reference = OPS.decoder_assembly_backward(grad, v, mask_dtype, "reference")
    _, truth = OPS.decoder_assembly_backward(grad.double(), v, torch.float64, "reference")
    assert torch.equal(seen, grad[:, :v])
    assert_accurate(mask, reference, truth)
    assert torch.equal(mask, OPS.decoder_assembly_backward(grad, v, mask_dtype, impl)[1])


def test_many_rows_share_few_partial_sums(
    interpreted: None, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """Several tiles per program, the last program with fewer rows than the others."""
    from videomae_fast.kernels import decoder_assembly as kernel

    monkeypatch.setattr(kernel, "LAUNCH", replace(kernel.LAUNCH, programs=3))
    grad = torch.randn(5, 23, 40, generator=torch.Generator().manual_seed(2)).to(device)
    seen, mask = OPS.decoder_assembly_backward(grad, 4, torch.float32, "triton")
    assert torch.equal(seen, grad[:, :4])
    truth = grad[:, 4:].double().sum((0, 1))
    assert_accurate(mask, grad[:, 4:].sum((0, 1)), truth, absolute=1e-5)


@pytest.mark.parametrize("impl", KERNELS)
def test_gradients_through_the_op(impl: str, device: str) -> None:
    """Of an expanded gradient too: that of a sum."""
    results = []
    for name in (impl, "reference"):
        visible, mask_token, *rest = inputs((2, 9, 3, 5, 24), torch.float32, device)
        visible.requires_grad_()
        mask_token.requires_grad_()
        out = decoder_assembly(visible, mask_token, *rest, impl=name)
        (out.sum() + out.square().sum()).backward()
        results += [visible.grad, mask_token.grad]
        assert mask_token.grad is not None
        assert mask_token.grad.shape == (1, 1, 24)
    torch.testing.assert_close(results[:2], results[2:])
    grad = torch.ones((), device=device).expand(2, 8, 24)
    seen, mask = OPS.decoder_assembly_backward(grad, 3, torch.float32, impl)
    assert seen.eq(1).all()
    assert mask.eq(10).all()


@pytest.mark.parametrize("impl", KERNELS)
def test_layouts(impl: str, device: str) -> None:
    """Strided visible tokens, positions and indices: the values of their dense copies."""
    visible, mask_token, positions, seen, hidden = inputs((2, 9, 6, 8, 32), torch.float32, device)
    for view in (visible[:, ::2, :16], visible[:, :3].transpose(1, 2)[:, ::11, :].repeat(1, 1, 6)):
        strided = [
            view[:, :3, :16],
            mask_token[..., ::2],
            positions[:, 16:],
            seen[:, ::2],
            hidden[:, ::2],
        ]
        dense = [tensor.contiguous() for tensor in strided]
        out = decoder_assembly(*strided, impl=impl)
        torch.testing.assert_close(out, decoder_assembly(*dense, impl="reference"))


@pytest.mark.parametrize("impl", KERNELS)
def test_no_clips(impl: str, device: str) -> None:
    grad = torch.randn(0, 5, 8, device=device)
    seen, mask = OPS.decoder_assembly_backward(grad, 2, torch.float32, impl)
    assert seen.shape == (0, 2, 8)
    assert mask.eq(0).all()
    empty = inputs((1, 4, 2, 3, 8), torch.float32, device)
    empty = [empty[0][:0], *empty[1:3], empty[3][:0], empty[4][:0]]
    assert decoder_assembly(*empty, impl=impl).shape == (0, 5, 8)


def test_refusals_say_why(interpreted: None, device: str) -> None:
    tensors = inputs((1, 4, 2, 3, 8), torch.float64, device)
    with pytest.raises(BackendUnavailableError, match="fp16, not"):
        decoder_assembly(*tensors, impl="triton")


def test_a_wrong_stride_is_noticed(
    interpreted: None, sabotage: Callable[..., None], device: str
) -> None:
    """Negative control: kernels that take every clip for the first."""
    from videomae_fast.kernels import decoder_assembly as kernel

    tensors = inputs((2, 9, 3, 5, 16), torch.float32, device)
    reference = decoder_assembly(*tensors, impl="reference")
    sabotage(kernel, "decoder_assembly_kernel", 9, lambda clip_stride: 0)
    with pytest.raises(AssertionError, match="error"):
        assert_accurate(decoder_assembly(*tensors, impl="triton"), reference, reference.double())
    grad = torch.randn(2, 8, 16, device=device)
    _, mask = OPS.decoder_assembly_backward(grad, 3, torch.float32, "reference")
    sabotage(kernel, "decoder_assembly_backward_kernel", 7, lambda clip_stride: 0)
    _, out = OPS.decoder_assembly_backward(grad, 3, torch.float32, "triton")
    with pytest.raises(AssertionError, match="error"):
        assert_accurate(out, mask, mask.double())


@pytest.mark.parametrize("dtype", [*FLOATS, torch.float64])
def test_the_reference_by_hand(dtype: torch.dtype) -> None:
    visible, token, table, seen, hidden = inputs((2, 9, 3, 2, 5), torch.float32, "cpu")
    visible = visible.to(dtype)
    sequence = decoder_assembly(visible, token, table, seen, hidden, impl="reference")
    compute = torch.promote_types(dtype, torch.float32)
    first = visible.to(compute) + table[seen.long()].to(compute)
    second = (token[0].to(compute) + table[hidden.long()].to(compute)).expand(2, 2, 5)
    assert torch.equal(sequence, torch.cat([first, second], 1).to(dtype))


@pytest.mark.without_gpu
def test_the_librarys_bits_do_not_depend_on_the_thread_count() -> None:
    tensors = inputs((4, 50, 33, 400, 192), torch.float32, "cpu")
    grad = torch.randn(4, 433, 192)

    def run() -> list[Tensor]:
        out = decoder_assembly(*tensors, impl="native")
        return [out, *OPS.decoder_assembly_backward(grad, 33, torch.float32, "native")]

    same_bits(run)
