"""Our models compute what the official code computes: values in tests/golden.

With every backend that runs on a CPU; tests/kernels has the same tests for the Triton kernels.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from videomae_fast import MAEConfig, MaskedAutoencoder, Masks, VideoClassifier
from videomae_fast.interop.weights import load_into
from videomae_fast.ops import pixel_target
from videomae_fast.ops.registry import forced, native_missing

native = pytest.mark.skipif(native_missing() is not None, reason=str(native_missing()))
IMPLS = ["auto", "reference", pytest.param("native", marks=native)]
CASES = ["pretrain_tiny_dual", "pretrain_tiny_tube", "pretrain_tiny_patch14_dual"]


def relative(value: torch.Tensor, truth: torch.Tensor) -> float:
    return float((value - truth).detach().norm() / truth.norm())


@pytest.fixture(params=IMPLS)
def impl(request):
    """Every op is forced to a backend, where it has that one."""
    with forced(request.param):
        yield request.param


@pytest.fixture
def device():
    return "cpu"


@pytest.fixture(params=CASES)
def case(request, golden, device, impl):
    data = golden(request.param, device)
    config = MAEConfig(**data.shape)
    model = MaskedAutoencoder(config)
    load_into(model, data.under("param/"))
    model.to(device)
    masks = Masks.from_bool(data["encoder_mask"], data.get("decoder_mask"), grid=config.grid)
    return data, model, masks


@pytest.mark.parametrize("one_pass", [False, True])
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


def test_masks_survive_the_round_trip(case):
    data, _, masks = case
    encoder, decoder = masks.to_bool()
    assert torch.equal(encoder, data["encoder_mask"])
    expected = data.get("decoder_mask")
    assert torch.equal(decoder, ~data["encoder_mask"] if expected is None else expected)


def test_classifier(golden, device, impl):
    data = golden("classify_tiny", device)
    shape = data.shape
    model = VideoClassifier(MAEConfig(**shape), int(data.metadata["num_classes"]))
    load_into(model, data.under("param/"))
    model.to(device)
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
