"""Each op: against a truth written another way, backward by gradcheck, registration by opcheck."""

from __future__ import annotations

import pytest
import torch
from torch.library import opcheck

from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    add_layer_norm,
    append_rows,
    attention,
    bias_gelu,
    decoder_assembly,
    linear,
    patch_gather,
    pixel_mse,
    token_gather,
    token_scatter,
)
from videomae_fast.ops.pixel_target import FLAT_STD, flat_cubes, pixel_target
from videomae_fast.ops.registry import REGISTRY, forced, native_missing

OPS = torch.ops.videomae_fast
native = pytest.mark.skipif(native_missing() is not None, reason=str(native_missing()))
IMPLS = ["reference", pytest.param("native", marks=native)]
# batch, frames, height, width, tubelet, patch: odd sizes, one token, the official patches
SHAPES = [(2, 4, 32, 48, 2, 16), (1, 2, 14, 14, 2, 14), (3, 3, 10, 15, 3, 5), (2, 4, 6, 4, 1, 2)]


def random_index(batch: int, tokens: int, k: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(tokens, (batch, k), generator=generator, dtype=torch.int32)
    index[:, -1] = tokens - 1
    return index


def cubes_by_hand(frames, index, tubelet, patch):
    """uint8 cubes [B, K, p0, p1, p2, c] by plain slicing."""
    _, _, height, width, _ = frames.shape
    rows, columns = height // patch, width // patch
    picked = []
    for b in range(len(frames)):
        for n in index[b].tolist():
            t, y, x = n // (rows * columns), n // columns % rows, n % columns
            picked.append(
                frames[
                    b,
                    t * tubelet : (t + 1) * tubelet,
                    y * patch : (y + 1) * patch,
                    x * patch : (x + 1) * patch,
                ]
            )
    return torch.stack(picked).reshape(*index.shape, tubelet, patch, patch, 3)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_patch_gather(shape, dtype, impl, random_frames):
    *size, tubelet, patch = shape
    frames = random_frames(*size)
    tokens = size[1] // tubelet * (size[2] // patch) * (size[3] // patch)
    index = random_index(size[0], tokens, 5)
    got = patch_gather(
        frames, index, tubelet_size=tubelet, patch_size=patch, dtype=dtype, impl=impl
    )
    cubes = cubes_by_hand(frames, index, tubelet, patch).double() / 255
    mean, std = torch.tensor(IMAGENET_MEAN).double(), torch.tensor(IMAGENET_STD).double()
    truth = ((cubes - mean) / std).permute(0, 1, 5, 2, 3, 4).flatten(2)
    assert got.dtype == dtype
    torch.testing.assert_close(got, truth.to(dtype), atol=1e-6, rtol=torch.finfo(dtype).eps)


@pytest.mark.parametrize("impl", IMPLS)
def test_patch_gather_is_the_conv3d(impl, random_frames):
    frames = random_frames(2, 4, 32, 32)
    conv = torch.nn.Conv3d(3, 7, (2, 16, 16), stride=(2, 16, 16))
    video = (frames / 255 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    truth = conv(video.permute(0, 4, 1, 2, 3)).flatten(2).transpose(1, 2)
    every = torch.arange(8, dtype=torch.int32).expand(2, -1)
    patches = patch_gather(frames, every, impl=impl)
    got = torch.nn.functional.linear(patches, conv.weight.flatten(1), conv.bias)
    torch.testing.assert_close(got, truth, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pixel_mse(shape, weighted, normalize, impl, random_frames):
    *size, tubelet, patch = shape
    frames = random_frames(*size)
    tokens = size[1] // tubelet * (size[2] // patch) * (size[3] // patch)
    index = random_index(size[0], tokens, 4)
    torch.manual_seed(0)
    prediction = torch.randn(size[0], 4, 3 * tubelet * patch**2, requires_grad=True)
    weight = torch.rand(size[0], 4) if weighted else None
    if weight is not None:
        weight[0, 0] = 0
    loss_sum, weight_sum = pixel_mse(
        prediction,
        frames,
        index,
        weight,
        tubelet_size=tubelet,
        patch_size=patch,
        normalize=normalize,
        impl=impl,
    )
    (3 * loss_sum).backward()
    target = cubes_by_hand(frames, index, tubelet, patch).double().flatten(2, 4) / 255
    if normalize:
        target = (target - target.mean(2, keepdim=True)) / (target.std(2, keepdim=True) + 1e-6)
    exact = prediction.detach().double().requires_grad_()
    weights = torch.ones(index.shape).double() if weight is None else weight.double()
    truth = (weights * (exact - target.flatten(2)).square().mean(-1)).sum()
    (3 * truth).backward()
    torch.testing.assert_close(loss_sum.detach().double(), truth.detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(weight_sum.double(), weights.sum(), rtol=1e-6, atol=0)
    torch.testing.assert_close(prediction.grad.double(), exact.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("impl", IMPLS)
def test_flat_cubes(impl, random_frames):
    """At most one grey level of standard deviation in every channel is flat; more is not."""
    frames = random_frames(1, 2, 16, 64)
    frames[..., :16, :] = 80
    frames[:, 0, 0, 0, 1] = 81
    frames[..., 16:32, :] = torch.tensor([10, 12]).repeat(8)[:, None].to(torch.uint8)
    frames[..., 32:48, 0] = 9  # one flat channel does not make a flat cube
    index = torch.arange(4, dtype=torch.int32)[None]
    std = pixel_target(frames, index, normalize=False).reshape(4, -1, 3).std(1).amax(1)
    assert (std <= FLAT_STD).tolist() == [True, False, False, False]
    assert flat_cubes(frames, index, tubelet_size=2, patch_size=16).tolist() == [
        [True, False, False, False]
    ]
    prediction = torch.zeros(1, 4, 1536, requires_grad=True)
    loss_sum, weight = pixel_mse(prediction, frames, index, ignore_flat=True, impl=impl)
    assert float(weight) == 3
    loss_sum.backward()
    assert not prediction.grad[0, 0].any()
    assert prediction.grad[0, 1:].any(-1).all()


@pytest.mark.parametrize("impl", IMPLS)
def test_weight_zero_silences_even_an_infinite_prediction(impl, random_frames):
    frames = random_frames(1, 2, 16, 32)
    prediction = torch.randn(1, 2, 1536)
    prediction[0, 0] = float("inf")
    prediction.requires_grad_()
    index = torch.tensor([[0, 1]], dtype=torch.int32)
    loss_sum, _ = pixel_mse(prediction, frames, index, torch.tensor([[0.0, 1.0]]), impl=impl)
    loss_sum.backward()
    assert torch.isfinite(loss_sum)
    assert torch.isfinite(prediction.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_tokens_and_assembly(dtype):
    torch.manual_seed(0)
    x = torch.randn(2, 7, 5).to(dtype)
    index = torch.tensor([[6, 0, 0], [1, 2, 3]], dtype=torch.int32)
    got = token_gather(x, index)
    assert torch.equal(got, torch.stack([x[b, index[b].long()] for b in range(2)]))
    back = token_scatter(got, index, 7)
    truth = torch.zeros(2, 7, 5, dtype=torch.float64)
    for b in range(2):
        for k in range(3):
            truth[b, index[b, k]] += got[b, k].double()
    torch.testing.assert_close(back, truth.to(dtype))
    token = torch.randn(1, 1, 5)
    table = torch.randn(9, 5)
    decoder_index = torch.tensor([[8, 7], [0, 1]], dtype=torch.int32)
    sequence = decoder_assembly(got, token, table, index, decoder_index)
    compute = torch.promote_types(dtype, torch.float32)
    seen = got.to(compute) + table[index.long()].to(compute)
    hidden = (token[0].to(compute) + table[decoder_index.long()].to(compute)).expand(2, 2, 5)
    assert torch.equal(sequence, torch.cat([seen, hidden], 1).to(dtype))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("shape", [(2, 3, 4, 6, 5), (1, 0, 2, 3, 1), (3, 2, 0, 4, 7)], ids=str)
def test_append_rows(shape, impl):
    """batch, own rows, appended, rows of the table, width; positions repeat, some are not named."""
    batch, own, appended, rows, width = shape
    torch.manual_seed(0)
    x = torch.randn(batch, own, width, requires_grad=True)
    table = torch.randn(rows, width, requires_grad=True)
    index = torch.randint(1, rows, (batch, appended), dtype=torch.int32)
    out = append_rows(x, table, index, impl=impl)
    truth = torch.cat([x, torch.stack([table[row.long()] for row in index])], 1)
    assert torch.equal(out, truth)
    grad = torch.randn_like(out)
    got = torch.autograd.grad(out, (x, table), grad)
    assert torch.equal(got[0], grad[:, :own])
    exact = torch.zeros(rows, width, dtype=torch.float64)
    for b in range(batch):
        for k in range(appended):
            exact[index[b, k]] += grad[b, own + k].double()
    torch.testing.assert_close(got[1].double(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("impl", ["sdpa", *IMPLS])
@pytest.mark.parametrize(("nq", "nk", "heads", "dim"), [(5, 9, 2, 8), (1, 1, 1, 3), (7, 7, 3, 88)])
def test_attention(nq, nk, heads, dim, impl, counted):
    torch.manual_seed(0)
    packed = torch.randn(2, nk, 2, heads, dim)
    key, value = (x.requires_grad_() for x in packed.unbind(2))
    query = torch.randn(2, nq, heads, dim, requires_grad=True)
    count = torch.tensor([nk, max(1, nk - 3)], dtype=torch.int32) if counted else None
    out = attention(query, key, value, key_count=count, impl=impl)
    grad = torch.randn_like(out)
    got = torch.autograd.grad(out, (query, key, value), grad)
    exact = [x.detach().double().requires_grad_() for x in (query, key, value)]
    rows = []
    for b in range(2):
        n = nk if count is None else int(count[b])
        q, k, v = (x[b].transpose(0, 1) for x in exact)
        weights = (q @ k[:, :n].mT * dim**-0.5).softmax(-1)
        rows.append((weights @ v[:, :n]).transpose(0, 1))
    truth = torch.stack(rows)
    torch.testing.assert_close(out.double(), truth, rtol=1e-5, atol=1e-5)
    for a, b in zip(got, torch.autograd.grad(truth, exact, grad.double()), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5)


def vectors(width, dtype, *, scaled):
    """LayerNorm's weight and bias, a branch's bias and LayerScale."""
    own = [torch.randn(width).to(dtype) for _ in range(4)]
    return own if scaled else [*own[:3], None]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 1, 192), (3, 7, 88), (2, 40, 384)], ids=str)
def test_add_layer_norm(shape, scaled, dropped, impl):
    torch.manual_seed(0)
    x, delta = torch.randn(shape) + 3, torch.randn(shape)
    weight, bias, delta_bias, scale = vectors(shape[-1], torch.float32, scaled=scaled)
    factor = torch.tensor([0.0, 2.0, 1.5])[: shape[0]] if dropped else None
    tensors = [t for t in (x, delta, weight, bias, delta_bias, scale) if t is not None]
    for tensor in tensors:
        tensor.requires_grad_()
    out, stream = add_layer_norm(
        x, delta, weight, bias, delta_bias=delta_bias, scale=scale, factor=factor, impl=impl
    )
    grads = torch.randn_like(out), torch.randn_like(stream)
    got = torch.autograd.grad((out, stream), tensors, grads)

    exact = [t.detach().double().requires_grad_() for t in tensors]
    branch = exact[1] + exact[4]
    if scaled:
        branch = branch * exact[5]
    if factor is not None:
        branch = branch * factor.double()[:, None, None]
    total = exact[0] + branch
    normal = torch.nn.functional.layer_norm(total, shape[-1:], exact[2], exact[3], 1e-6)
    torch.testing.assert_close(out.double(), normal, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(stream.double(), total, rtol=1e-5, atol=1e-5)
    truth = torch.autograd.grad((normal, total), exact, [g.double() for g in grads])
    for a, b in zip(got, truth, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_add_layer_norm_in_half_precision(dtype):
    """The statistics are those of the rounded stream, in fp32: one rounding of the result."""
    torch.manual_seed(0)
    x, delta = (torch.randn(2, 9, 96).to(dtype) for _ in range(2))
    weight, bias, delta_bias, _ = vectors(96, torch.float32, scaled=False)
    out, stream = add_layer_norm(x, delta, weight, bias, delta_bias=delta_bias)
    assert out.dtype == stream.dtype == dtype
    exact = torch.nn.functional.layer_norm(stream.float(), (96,), weight, bias, 1e-6)
    torch.testing.assert_close(out, exact.to(dtype))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5, 7), (2, 30, 768)], ids=str)
def test_bias_gelu(shape, impl):
    torch.manual_seed(0)
    x = (3 * torch.randn(shape)).requires_grad_()
    bias = torch.randn(shape[-1], requires_grad=True)
    out = bias_gelu(x, bias, impl=impl)
    grad = torch.randn(shape)
    got = torch.autograd.grad(out, (x, bias), grad)
    exact = [t.detach().double().requires_grad_() for t in (x, bias)]
    truth = torch.nn.functional.gelu(exact[0] + exact[1])
    torch.testing.assert_close(out.double(), truth, rtol=1e-5, atol=1e-6)
    for a, b in zip(got, torch.autograd.grad(truth, exact, grad.double()), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("impl", ["auto", "torch", "onednn", "reference"])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(
    ("rows", "inner", "outer"), [((2, 3), 5, 7), ((4,), 33, 9), ((1, 1), 1, 1)]
)
def test_linear(rows, inner, outer, with_bias, impl):
    torch.manual_seed(0)
    x = torch.randn(*rows, inner, requires_grad=True)
    weight = torch.randn(outer, inner, requires_grad=True)
    bias = torch.randn(outer, requires_grad=True) if with_bias else None
    inputs = [t for t in (x, weight, bias) if t is not None]
    out = linear(x, weight, bias, impl=impl)
    grad = torch.randn(*rows, outer)
    got = torch.autograd.grad(out, inputs, grad)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    truth = torch.nn.functional.linear(*exact)
    torch.testing.assert_close(out.double(), truth, rtol=1e-5, atol=1e-5)
    for a, b in zip(got, torch.autograd.grad(truth, exact, grad.double()), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)
    frozen = linear(x.detach(), weight, bias, impl=impl)
    (alone,) = torch.autograd.grad(frozen, weight, grad)
    torch.testing.assert_close(alone, got[1])


def test_linear_of_slices_and_strides():
    """A slice of a packed weight, and an input that lies transposed."""
    torch.manual_seed(0)
    x, weight = torch.randn(5, 3, 4).transpose(0, 1), torch.randn(12, 4)
    for impl in ("onednn", "torch"):
        out = linear(x, weight[4:], impl=impl)
        torch.testing.assert_close(out, x @ weight[4:].t())
    with pytest.raises(BackendUnavailableError, match="oneDNN takes fp32, not"):
        linear(x.bfloat16(), weight.bfloat16(), impl="onednn")
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16


def opcheck_cases():
    frames = torch.randint(0, 256, (2, 2, 8, 8, 3), dtype=torch.uint8)
    index = torch.tensor([[0, 3], [1, 1]], dtype=torch.int32)
    prediction = torch.randn(2, 2, 3 * 2 * 16, requires_grad=True)
    x = torch.randn(2, 4, 6, requires_grad=True)
    head = [torch.randn(2, 4, 2, 3, requires_grad=True) for _ in range(3)]
    count = torch.tensor([4, 2], dtype=torch.int32)
    table = torch.randn(4, 6)
    return {
        "patch_gather": (
            frames, index, 2, 4, list(IMAGENET_MEAN), list(IMAGENET_STD), torch.float32, "auto",
        ),
        "pixel_mse": (
            prediction, frames, index, torch.rand(2, 2), 2, 4, True, False, "auto",
        ),
        "pixel_mse_with_gradient": (
            prediction.detach(), frames, index, torch.rand(2, 2), 2, 4, True, True, 0.5, "auto",
        ),
        "gradient_root": (prediction, torch.randn(prediction.shape)),
        "pixel_mse_backward": (
            torch.tensor(1.0), prediction.detach(), frames, index, None, 2, 4, True, True, "auto",
        ),
        "crop_resize": (
            [torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8), frames[1, :, :6]],
            torch.tensor([[1, 2, 1, 5, 3, 1], [0, 0, 0, 7, 5, 0]]), 4, 6, "auto",
        ),
        "crop_resize_into": (
            [frames[0]], torch.tensor([[0, 2, 1, 5, 3, 1]]),
            torch.empty((1, frames.shape[1], 4, 6, 3), dtype=torch.uint8), "auto",
        ),
        "token_gather": (x, index, "auto"),
        "token_scatter": (x, torch.tensor([[0, 4, 4, 1]] * 2, dtype=torch.int32), 5, "auto"),
        "decoder_assembly": (
            x, torch.randn(6, requires_grad=True), table,
            torch.tensor([[0, 1, 2, 3]] * 2, dtype=torch.int32), index, "auto",
        ),
        "decoder_assembly_backward": (x.detach(), 2, torch.float32, "auto"),
        "append_rows": (x, torch.randn(5, 6, requires_grad=True), index, "auto"),
        "append_rows_backward": (x.detach(), index, 5, "auto"),
        "attention": (*head, count, "reference"),
        "attention_backward": (
            head[0].detach(), *(h.detach() for h in head), None, head[0].detach(),
            torch.randn(2, 2, 4), "reference",
        ),
        "linear": (
            x, torch.randn(5, 6, requires_grad=True), torch.randn(5, requires_grad=True),
            "reference",
        ),
        "linear_backward": (
            torch.randn(2, 4, 5), x.detach(), torch.randn(5, 6), True, True, "reference",
        ),
        "bias_gelu": (x, torch.randn(6, requires_grad=True), "auto"),
        "bias_gelu_backward": (x.detach(), x.detach(), torch.randn(6), "auto"),
        "add_layer_norm": (
            x, torch.randn(2, 4, 6, requires_grad=True),
            *(torch.randn(6, requires_grad=True) for _ in range(4)), torch.ones(2), 1e-6, "auto",
        ),
        "add_layer_norm_backward": (
            x.detach(), None, x.detach(), torch.randn(2, 4), torch.rand(2, 4), torch.randn(6),
            None, None, None, None, True, "auto",
        ),
        "mask_indices": (
            torch.arange(3), 4, 2, 2, "tube", 2, "running-cell", 2, False, False, 8, 8, 4, "auto",
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(opcheck_cases()))
def test_registration(name):
    torch.manual_seed(0)
    opcheck(getattr(OPS, name).default, opcheck_cases()[name])


@native
@pytest.mark.parametrize("name", ["attention", "attention_backward"])
def test_registration_of_native_attention(name):
    """The other ops with a native backend take it above, where their impl is "auto"."""
    torch.manual_seed(0)
    opcheck(getattr(OPS, name).default, (*opcheck_cases()[name][:-1], "native"))


def test_every_op_is_checked():
    registered = {name.split("::")[1] for name in torch._C._dispatch_get_all_op_names()
                  if name.startswith("videomae_fast::")}  # fmt: skip
    assert registered == set(opcheck_cases())
    assert set(REGISTRY) <= registered


def test_gradients_in_float64(random_frames):
    torch.manual_seed(0)
    double = {"dtype": torch.float64, "requires_grad": True}
    x = torch.randn(2, 4, 3, **double)
    index = torch.tensor([[0, 3, 3], [1, 2, 0]], dtype=torch.int32)
    assert torch.autograd.gradcheck(lambda a: token_gather(a, index), (x,))
    assert torch.autograd.gradcheck(lambda a: token_scatter(a[:, :3], index, 4), (x,))
    token, table = torch.randn(3, **double), torch.randn(6, 3)
    seen = torch.tensor([[0, 1, 2, 3]] * 2, dtype=torch.int32)
    assert torch.autograd.gradcheck(
        lambda a, t: decoder_assembly(a, t, table, seen, index), (x, token)
    )
    shared = torch.randn(5, 3, **double)
    assert torch.autograd.gradcheck(lambda a, t: append_rows(a, t, index), (x, shared))
    scale, delta_bias = torch.randn(3, **double), torch.randn(3, **double)
    weight, bias, delta = *(torch.randn(3, **double) for _ in range(2)), torch.randn_like(x)
    assert torch.autograd.gradcheck(
        lambda a, d, w, b, e, s: add_layer_norm(
            a, d, w, b, delta_bias=e, scale=s, factor=torch.tensor([0.5, 2.0])
        ),
        (x, delta.requires_grad_(), weight, bias, delta_bias, scale),
    )
    assert torch.autograd.gradcheck(
        lambda a, d, w, b: add_layer_norm(a, d, w, b), (x, delta, weight, bias)
    )
    assert torch.autograd.gradcheck(lambda a, b: bias_gelu(a, b), (x, bias))
    frames = random_frames(2, 2, 4, 4)
    one = torch.zeros(2, 1, dtype=torch.int32)
    prediction = torch.randn(2, 1, 3 * 2 * 16, **double)
    assert torch.autograd.gradcheck(
        lambda p: pixel_mse(p, frames, one, torch.tensor([[0.5], [2.0]]), patch_size=4)[0],
        (prediction,),
    )
    q, k, v = (torch.randn(2, 3, 2, 4, **double) for _ in range(3))
    count = torch.tensor([3, 2], dtype=torch.int32)
    assert torch.autograd.gradcheck(
        lambda *a: attention(*a, key_count=count, impl="reference"), (q, k, v)
    )


def test_bad_arguments_are_errors(random_frames):
    frames, index = random_frames(2, 2, 16, 16), torch.zeros(2, 1, dtype=torch.int32)
    with pytest.raises(ValueError, match="index must be int32"):
        patch_gather(frames, index.long())
    with pytest.raises(ValueError, match=r"index must be \[B=2, K\]"):
        patch_gather(frames, index[:1])
    with pytest.raises(ValueError, match="prediction must be"):
        pixel_mse(torch.zeros(2, 1, 5), frames, index)
    with pytest.raises(ValueError, match="weight must be fp32"):
        pixel_mse(torch.zeros(2, 1, 1536), frames, index, torch.ones(2, 1).double())
    with pytest.raises(ValueError, match="does not fit key"):
        attention(torch.zeros(1, 2, 2, 4), *[torch.zeros(1, 2, 1, 4)] * 2)
    with pytest.raises(ValueError, match="rows per clip"):
        token_scatter(torch.zeros(2, 3, 4), index, 5)
    with pytest.raises(ValueError, match=r"table must be torch.float32 \[N, 4\]"):
        append_rows(torch.zeros(2, 3, 4), torch.zeros(5, 3), index)
    with pytest.raises(ValueError, match=r"table must be torch.float32 \[N, 4\]"):
        append_rows(torch.zeros(2, 3, 4), torch.zeros(5, 4).double(), index)
    with pytest.raises(ValueError, match=r"index must be \[B=2, K\]"):
        append_rows(torch.zeros(2, 3, 4), torch.zeros(5, 4), index[:1])
    with pytest.raises(ValueError, match=r"index must be \[B=3, K\]"):
        token_gather(torch.zeros(3, 3, 4), index)
    x, ones = torch.zeros(2, 3, 8), torch.ones(8)
    with pytest.raises(ValueError, match=r"bias must be \[8\], got \[9\]"):
        bias_gelu(x, torch.ones(9))
    with pytest.raises(ValueError, match=r"weight must be \[8\], got \[7\]"):
        add_layer_norm(x, x, torch.ones(7), ones)
    with pytest.raises(ValueError, match=r"factor must be \[2\], got \[3\]"):
        add_layer_norm(x, x, ones, ones, factor=torch.ones(3))
    with pytest.raises(ValueError, match=r"x and delta must be \[B, N, D\]"):
        add_layer_norm(x, x[:, 1:], ones, ones)
    with pytest.raises(BackendUnavailableError, match="takes fp32, not torch"):
        add_layer_norm(x.double(), x.double(), ones, ones, impl="native")
    head = torch.zeros(2, 3, 2, 4)
    with pytest.raises(ValueError, match="query, key, value must be"):
        attention(head, head, head[:, 1:])
    with pytest.raises(BackendUnavailableError, match="takes int32 for key_count"):
        attention(head, head, head, key_count=torch.tensor([1, 2]), impl="native")
    with pytest.raises(ValueError, match="is not a positive multiple of 10"):
        patch_gather(frames, index, patch_size=10)
    with pytest.raises(BackendUnavailableError, match="has no backend 'magic'; it has auto"):
        token_gather(torch.zeros(2, 3, 4), index, impl="magic")
    with pytest.raises(BackendUnavailableError, match="fp16, not torch"):
        patch_gather(frames, index, dtype=torch.float64, impl="native")


@native
def test_native_checks_positions(random_frames):
    index = torch.tensor([[0, 7]], dtype=torch.int32)
    with pytest.raises(IndexError, match="token position 7"):
        append_rows(torch.zeros(1, 3, 4), torch.zeros(7, 4), index, impl="native")
    with pytest.raises(IndexError, match="token position 7"):
        patch_gather(random_frames(1, 2, 16, 16), index, impl="native")


def test_forcing_a_backend(random_frames):
    """Where an op has the forced backend it is used, or says why it can't be."""
    frames, index = random_frames(1, 2, 16, 16), torch.zeros(1, 1, dtype=torch.int32)
    with (
        forced("native"),
        pytest.raises(BackendUnavailableError, match="fp16, not torch"),
    ):
        patch_gather(frames, index, dtype=torch.float64)
    with forced("magic"):
        patch_gather(frames, index, dtype=torch.float64)
    patch_gather(frames, index, dtype=torch.float64)


def test_forcing_a_backend_of_one_op(random_frames):
    frames, index = random_frames(1, 2, 16, 16), torch.zeros(1, 1, dtype=torch.int32)
    with forced("native", patch_gather="reference"):
        patch_gather(frames, index, dtype=torch.float64)  # native can't
    with forced("reference", patch_gather="native"):
        with pytest.raises(BackendUnavailableError, match="fp16, not torch"):
            patch_gather(frames, index, dtype=torch.float64)
        with forced("auto"):
            patch_gather(frames, index, dtype=torch.float64)
        with pytest.raises(BackendUnavailableError, match="fp16, not torch"):
            patch_gather(frames, index, dtype=torch.float64)
    with pytest.raises(ValueError, match="no op is called gather"), forced("auto", gather="native"):
        pass
