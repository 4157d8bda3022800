"""Our models compute what the official code computes: values in tests/golden.

With every backend on a CPU, Triton's kernels in the interpreter, and on a GPU with Triton's kernels
and as ops choose their backends there. Matmuls may not add up in reduced precision on a GPU:
tests/conftest.py sees to that with --gpu.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from tests.support.devices import NEEDS_GPU, missing
from tests.support.interpreter import ON_GPU, SWITCH
from videomae_fast import MAEConfig, MaskedAutoencoder, Masks, VideoClassifier
from videomae_fast.interop import load_into
from videomae_fast.ops import pixel_target
from videomae_fast.ops.registry import forced, native_missing

native = pytest.mark.skipif(native_missing() is not None, reason=str(native_missing()))
GPU = "cuda" if ON_GPU else "cpu"
# Device and backend; every op is forced to it, where it has that one
CHOICES = [
    pytest.param(("cpu", "auto"), marks=pytest.mark.without_gpu, id="auto"),
    pytest.param(("cpu", "reference"), marks=pytest.mark.without_gpu, id="reference"),
    pytest.param(("cpu", "native"), marks=[native, pytest.mark.without_gpu], id="native"),
    pytest.param(("cuda", "auto"), marks=NEEDS_GPU, id="gpu"),
]
TRITON = pytest.param((GPU, "triton"), id="triton")
CASES = ["pretrain_tiny_dual", "pretrain_tiny_tube", "pretrain_tiny_patch14_dual"]


def relative(value: torch.Tensor, truth: torch.Tensor) -> float:
    return float((value - truth).detach().norm() / truth.norm())


@pytest.fixture(params=[*CHOICES, TRITON])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where the model is, with the backend forced."""
    where, impl = request.param
    if impl == "triton" and not ON_GPU:
        monkeypatch.setenv(SWITCH, "1")
    with forced(impl):
        yield where


@pytest.fixture
def interpreting(device: str) -> bool:
    """Whether Triton's kernels are interpreted; `device` comes first."""
    return os.environ.get(SWITCH) == "1"


@pytest.fixture(params=CASES)
def case(request, golden, device):
    data = golden(request.param, device)
    config = MAEConfig(**data.shape)
    model = MaskedAutoencoder(config)
    load_into(model, data.under("param/"))
    model.to(device)
    masks = Masks.from_bool(data["encoder_mask"], data.get("decoder_mask"), grid=config.grid)
    return data, model, masks


# In the interpreter each takes long: of both losses one, in two models whose patches differ
INTERPRETED = [(CASES[0], True), (CASES[2], False)]
LOSSES = [
    pytest.param(*choice.values, name, one_pass, marks=choice.marks,
                 id=f"{name}-{choice.id}-{one_pass}")
    for name in CASES for choice in (*CHOICES, TRITON) for one_pass in (False, True)
    if choice is not TRITON or ON_GPU or (name, one_pass) in INTERPRETED
]  # fmt: skip


@pytest.mark.parametrize(("device", "case", "one_pass"), LOSSES, indirect=["device", "case"])
def test_loss_and_every_gradient(case, one_pass):
    data, model, masks = case
    scale = 1 / masks.loss_index.numel() if one_pass else None
    output = model(data["frames"], masks, gradient_scale=scale)
    assert float(output.loss.detach()) == pytest.approx(float(data["loss"]), rel=1e-5)
    if one_pass:
        assert output.loss_weight == masks.loss_index.numel()
        output.backward()
    else:
        output.loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    norms = data.under("gradnorm/")
    assert set(norms) == set(gradients)
    for name, norm in norms.items():
        assert float(gradients[name].norm()) == pytest.approx(float(norm), rel=1e-4), name
    for name, truth in data.under("grad/").items():
        assert relative(gradients[name], truth) < 1e-4, name


# Loss and gradients hold the kernels' predictions; the interpreter takes long, a program per token
@pytest.mark.parametrize("device", CHOICES, indirect=True)
def test_predictions_and_targets(case):
    """The file has the first 8 decoded rows of each clip, whether they are in the loss or not."""
    data, model, _ = case
    config = model.config
    everything = Masks.from_bool(
        data["encoder_mask"], data.get("decoder_mask"), grid=config.grid, loss_over="all"
    )
    output = model(data["frames"], everything, return_prediction=True)
    assert torch.equal(output.index, everything.decoder)
    assert relative(output.prediction[:, :8], data["prediction_head"]) < 1e-4
    assert float(output.prediction.detach().norm()) == pytest.approx(
        float(data["prediction_norm"]), rel=1e-4
    )
    target = pixel_target(data["frames"], everything.decoder, patch_size=config.patch_size)
    assert relative(target[:, :8], data["target_head"]) < 1e-4
    assert float(target.norm()) == pytest.approx(float(data["target_norm"]), rel=1e-4)


@pytest.mark.parametrize("device", CHOICES, indirect=True)
def test_masks_survive_the_round_trip(case):
    data, _, masks = case
    encoder, decoder = masks.to_bool()
    assert torch.equal(encoder, data["encoder_mask"])
    expected = data.get("decoder_mask")
    assert torch.equal(decoder, ~data["encoder_mask"] if expected is None else expected)


def test_classifier(golden, device, interpreting):
    data = golden("classify_tiny", device)
    shape = data.shape
    model = VideoClassifier(MAEConfig(**shape), int(data.metadata["num_classes"]))
    load_into(model, data.under("param/"))
    model.to(device)
    if interpreting:  # takes long: one clip, and gradients by the models above
        with torch.no_grad():
            features = model.features(data["frames"][:1])
        assert relative(features, data["features"][:1]) < 1e-4
        assert relative(model.head(features), data["logits"][:1]) < 1e-4
        return
    features = model.features(data["frames"])
    assert relative(features, data["features"]) < 1e-4
    logits = model(data["frames"])
    assert relative(logits, data["logits"]) < 1e-4
    loss = F.cross_entropy(logits, data["labels"])
    assert float(loss.detach()) == pytest.approx(float(data["loss"]), rel=1e-5)
    loss.backward()
    norms = data.under("gradnorm/")
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert set(norms) == set(gradients)
    for name, norm in norms.items():
        assert float(gradients[name].norm()) == pytest.approx(float(norm), rel=1e-4), name


@pytest.mark.gpu
@missing
def test_nothing_is_added_up_in_less_than_fp32():
    matmul = torch.backends.cuda.matmul
    assert not matmul.allow_bf16_reduced_precision_reduction
    assert not matmul.allow_fp16_reduced_precision_reduction
    assert not matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("device", CHOICES[-1:], indirect=True)
def test_loss_and_gradients_in_bf16(case):
    data, model, masks = case
    with torch.autocast("cuda", torch.bfloat16):
        output = model(data["frames"], masks, gradient_scale=1 / masks.loss_index.numel())
    output.backward()
    assert float(output.loss) == pytest.approx(float(data["loss"]), rel=2e-3)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    known = data.under("grad/")
    assert known
    apart = sum(float((gradients[k] - v).square().sum()) for k, v in known.items())
    size = sum(float(v.square().sum()) for v in known.values())
    assert (apart / size) ** 0.5 < 5e-2
