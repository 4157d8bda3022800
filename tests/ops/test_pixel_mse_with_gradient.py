"""Pixel loss and gradient in one pass, and backward from a gradient that is known already."""

from __future__ import annotations

import weakref

import pytest
import torch

from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import (
    gradient_root,
    pixel_mse,
    pixel_mse_with_gradient,
    pixel_target,
    start_backward,
)
from videomae_fast.ops.pixel_target import flat_cubes
from videomae_fast.ops.registry import native_missing

pytestmark = pytest.mark.without_gpu
native = pytest.mark.skipif(native_missing() is not None, reason=str(native_missing()))
CASES = [
    *(("reference", dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)),
    *(pytest.param("native", dtype, marks=native) for dtype in (torch.float32, torch.bfloat16)),
]
# batch, frames, height, width, tubelet, patch: odd sizes, the official patches
SHAPES = [(2, 4, 32, 48, 2, 16), (1, 2, 14, 28, 2, 14), (3, 3, 10, 15, 3, 5), (2, 4, 6, 4, 1, 2)]
# One unit in the last place, relative: the gradient is rounded to the prediction's dtype once.
UNIT = {torch.float32: 2.0**-22, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


def inputs(shape, dtype, random_frames, k=4):
    """prediction, frames (one cube flat), index, weight (one 0), sizes."""
    b, t, h, w, tubelet, patch = shape
    frames = random_frames(b, t, h, w)
    frames[0, :tubelet, :patch, :patch] = 9
    torch.manual_seed(0)
    tokens = t // tubelet * (h // patch) * (w // patch)
    index = torch.randint(tokens, (b, k), dtype=torch.int32)
    index[:, 0] = 0
    weight = torch.rand(b, k)
    weight[-1, 1] = 0
    prediction = torch.randn(b, k, 3 * tubelet * patch**2).to(dtype)
    return prediction, frames, index, weight, {"tubelet_size": tubelet, "patch_size": patch}


@pytest.mark.parametrize(
    "options",
    [{}, {"normalize": False}, {"ignore_flat": True}, {"normalize": False, "ignore_flat": True}],
    ids=str,
)
@pytest.mark.parametrize(("impl", "dtype"), CASES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("weighted", [True, False])
def test_it_is_the_loss_and_its_gradient(weighted, shape, impl, dtype, options, random_frames):
    """Bit for bit what the separate passes give, and one rounding away from the truth."""
    prediction, frames, index, weight, sizes = inputs(shape, dtype, random_frames)
    weight = weight if weighted else None
    settings = {**sizes, **options, "impl": impl}
    loss_sum, weight_sum, gradient = pixel_mse_with_gradient(
        prediction, frames, index, weight, scale=0.3, **settings
    )
    assert gradient.dtype == dtype
    assert gradient.is_contiguous()
    leaf = prediction.clone().requires_grad_()
    sums = pixel_mse(leaf, frames, index, weight, **settings)
    # fp32's 0.3, as it arrives at a separate backward pass
    (sums[0] * torch.tensor(0.3)).backward()
    assert torch.equal(loss_sum, sums[0])
    assert torch.equal(weight_sum, sums[1])
    assert torch.equal(gradient, leaf.grad)
    exact = prediction.double().requires_grad_()
    truth, _ = pixel_mse(exact, frames, index, weight, **sizes, **options)
    (0.3 * truth).backward()
    # The difference cancels where the prediction is near its target; a flat cube's target is noise
    target = pixel_target(frames, index, normalize=options.get("normalize", True), **sizes)
    sizes_seen = 1 + target.abs().double() + exact.detach().abs()
    slack = 2.0**-20 * 0.3 * 2 / target.shape[-1] * sizes_seen
    tiny = 2.0**-25 if dtype == torch.float16 else 0  # half of fp16's smallest number
    error = (gradient.double() - exact.grad).abs()
    good = error <= exact.grad.abs() * UNIT[dtype] + slack + tiny
    assert good[~flat_cubes(frames, index, **sizes)].all()
    if options.get("ignore_flat"):
        assert not gradient[0, 0].any()


@pytest.mark.parametrize("impl", ["reference", pytest.param("native", marks=native)])
def test_weight_zero_silences_even_an_infinite_prediction(impl, random_frames):
    prediction, frames, index, weight, sizes = inputs(SHAPES[0], torch.float32, random_frames)
    clean = pixel_mse_with_gradient(prediction, frames, index, weight, **sizes, impl=impl)
    prediction[-1, 1] = float("inf")
    out = pixel_mse_with_gradient(prediction, frames, index, weight, **sizes, impl=impl)
    assert all(torch.equal(one, other) for one, other in zip(out, clean, strict=True))
    assert not out[2][-1, 1].any()
    endless = {**sizes, "scale": float("inf"), "impl": impl}
    assert not pixel_mse_with_gradient(prediction, frames, index, weight, **endless)[2][-1, 1].any()


@pytest.mark.parametrize("impl", ["reference", pytest.param("native", marks=native)])
def test_predictions_that_are_not_contiguous(impl, random_frames):
    prediction, frames, index, weight, sizes = inputs(SHAPES[0], torch.float32, random_frames)
    for view in (
        prediction[:, ::2],
        prediction[:, :1].expand(-1, 2, -1),
        prediction[:, :2].transpose(1, 2).contiguous().transpose(1, 2),
        torch.cat([prediction, prediction], -1)[:, :2, : prediction.shape[-1]],
    ):
        assert not view.is_contiguous()
        rest = frames, index[:, :2], weight[:, :2]
        out = pixel_mse_with_gradient(view, *rest, **sizes, impl=impl)
        dense = pixel_mse_with_gradient(view.contiguous(), *rest, **sizes, impl=impl)
        for one, other in zip(out, dense, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=0)


@pytest.mark.parametrize("impl", ["reference", pytest.param("native", marks=native)])
@pytest.mark.filterwarnings("ignore:var")  # the reference's deviations of nothing
def test_no_tokens(impl, random_frames):
    prediction, frames, index, _, sizes = inputs(SHAPES[0], torch.float32, random_frames)
    leaf = prediction[:, :0].clone().requires_grad_()
    out = pixel_mse_with_gradient(leaf, frames, index[:, :0], **sizes, impl=impl)
    assert out[0] == out[1] == 0
    assert out[2].shape == leaf.shape
    pixel_mse(leaf, frames, index[:, :0], **sizes, impl=impl)[0].backward()


def test_fp16_and_the_scale(random_frames):
    """A mean over a large batch's tokens rounds to nothing in fp16; unit and loss scale keep it."""
    prediction, frames, index, _, sizes = inputs(SHAPES[0], torch.float16, random_frames)
    tokens = 100_000
    lost, kept, raised = (
        pixel_mse_with_gradient(prediction, frames, index, scale=scale, **sizes)[2]
        for scale in (1 / tokens, 1.0, 65536.0 / tokens)
    )
    exact, target = prediction.double(), pixel_target(frames, index, dtype=torch.float64, **sizes)
    truth = (exact - target) * 2 / exact.shape[-1]
    normal = truth.abs() > 1e-4  # the largest are some 5e-3
    assert normal.float().mean() > 0.8
    assert ((lost.double() * tokens - truth).abs() > 0.2 * truth.abs())[normal].float().mean() > 0.5
    for gradient, scale in ((kept, 1.0), (raised, 65536.0 / tokens)):
        error = (gradient.double() / scale - truth).abs()
        assert (error <= 2.0**-11 * truth.abs() + 1e-7)[normal].all()


def test_backward_from_a_root():
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 4), torch.randn(5, 4, requires_grad=True)
    gradient = torch.randn(2, 3, 5)
    (expected,) = torch.autograd.grad(x @ weight.t(), weight, gradient)
    start_backward(gradient_root(x @ weight.t(), gradient))
    assert torch.equal(weight.grad, expected)
    # No number that someone multiplies in can be lost: there is none
    root = gradient_root(x @ weight.t(), gradient)
    assert root.numel() == 0
    with pytest.raises(RuntimeError, match="create_graph"):
        torch.autograd.grad(root, weight, torch.empty(0), create_graph=True)
    with pytest.raises(ValueError, match=r"can't be torch.float64 \[2, 3, 5\]"):
        gradient_root(x @ weight.t(), gradient.double())
    with pytest.raises(ValueError, match=r"can't be torch.float32 \[2, 3\]"):
        gradient_root(x @ weight.t(), gradient[..., 0])


def test_the_gradient_survives_repeated_use():
    """retain_graph, a leaf that accumulates, and someone who writes into its grad."""
    torch.manual_seed(0)
    leaf, gradient = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3)
    before = gradient.clone()
    root = gradient_root(leaf, gradient)
    for times in (1, 2, 3):
        torch.autograd.backward(root, torch.empty(0), retain_graph=True)
        torch.testing.assert_close(leaf.grad, times * before)
    leaf.grad.zero_()
    torch.autograd.backward(root, torch.empty(0), retain_graph=True)
    assert torch.equal(leaf.grad, before)
    leaf.grad = None
    torch.autograd.backward(root, torch.empty(0), retain_graph=True)
    leaf.grad.mul_(2)
    other = (leaf * 2).sum()
    torch.autograd.backward((root, other), (torch.empty(0), None))
    torch.testing.assert_close(leaf.grad, 3 * before + 2)
    assert torch.equal(gradient, before)


def test_nothing_is_kept_for_longer_than_needed():
    """Not the prediction from the start, and not the gradient once the layer before is done."""
    torch.manual_seed(0)
    first, second = (torch.randn(4, 4, requires_grad=True) for _ in range(2))
    hidden = torch.randn(3, 4) @ first
    alive = []
    hidden.register_hook(lambda _: alive.append(held() is not None))
    prediction = hidden @ second
    gradient = torch.randn(3, 4)
    kept, held = weakref.ref(prediction), weakref.ref(gradient)
    root = gradient_root(prediction, gradient)
    del prediction, gradient
    assert kept() is None
    assert held() is not None
    start_backward(root)
    assert alive == [False]


def test_double_backward_is_refused(random_frames):
    prediction, frames, index, weight, sizes = inputs(SHAPES[3], torch.float32, random_frames)
    leaf = prediction.requires_grad_()
    loss, _ = pixel_mse(leaf, frames, index, weight, **sizes)
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="pixel_mse has no second derivative"):
        gradient.sum().backward()
    loss, _, gradient = pixel_mse_with_gradient(leaf, frames, index, weight, **sizes)
    assert not loss.requires_grad
    assert not gradient.requires_grad


def test_bad_arguments_are_errors(random_frames):
    prediction, frames, index, weight, sizes = inputs(SHAPES[0], torch.float32, random_frames)
    with pytest.raises(ValueError, match="prediction must be"):
        pixel_mse_with_gradient(prediction[:, 1:], frames, index, **sizes)
    with pytest.raises(ValueError, match="weight must be fp32"):
        pixel_mse_with_gradient(prediction, frames, index, weight.double(), **sizes)
    with pytest.raises(BackendUnavailableError, match="takes fp32 and bf16, not"):
        pixel_mse_with_gradient(prediction.half(), frames, index, **sizes, impl="native")
