"""The decoder's first block makes what the clips share once, and nothing changes by that.

"Plain" is the decoder called without saying what is shared: every token of every clip gets its own
LayerNorm and its own queries, keys and values.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from videomae_fast import MAEConfig, MaskedAutoencoder, Masks, MaskSpec
from videomae_fast.models.transformer import add_norm
from videomae_fast.ops import decoder_assembly, pixel_mse
from videomae_fast.ops.registry import forced, native_missing

native = pytest.mark.skipif(native_missing() is not None, reason=str(native_missing()))
# 3 time slots of 3 × 3: the lists of the running cell end in padding
SHAPE = {"image_size": 48, "frames": 6, "width": 32, "depth": 1, "heads": 2, "decoder_width": 16,
         "decoder_depth": 2, "decoder_heads": 2, "layer_scale": 0.5}  # fmt: skip
SPECS = {
    "running cell, padded": MaskSpec(encoder_ratio=0.6),
    "skip seen": MaskSpec(encoder="random", encoder_ratio=0.6, decoder="random", skip_seen=True),
    "all in the loss": MaskSpec(encoder_ratio=0.6, loss_over="all"),
    "random": MaskSpec(encoder="random", encoder_ratio=0.6, decoder="random"),
    "frame": MaskSpec(encoder_ratio=0.6, decoder="frame"),
    "none": MaskSpec(encoder_ratio=0.6, decoder="none"),
}


def plain_loss(model: MaskedAutoencoder, frames: Tensor, masks: Masks) -> Tensor:
    """The model's loss with nothing shared."""
    seen = masks.visible.shape[1]
    sequence = decoder_assembly(
        model.encoder_to_decoder(model.encoder(frames, masks.visible, masks.grid)),
        model.mask_token,
        model.decoder_positions(masks.grid),
        masks.visible,
        masks.decoder,
    )
    stream, branch = model.decoder.blocks(
        sequence,
        queries=masks.loss_slot + seen,
        key_count=None if masks.decoder_count is None else masks.decoder_count + seen,
    )
    prediction = model.decoder.head(add_norm(stream, branch, model.decoder.norm)[0])
    loss_sum, weight = pixel_mse(prediction, frames, masks.loss_index, masks.loss_weight)
    return loss_sum / weight


def shared_loss(model: MaskedAutoencoder, frames: Tensor, masks: Masks) -> Tensor:
    return model(frames, masks).loss


def result(run, model: MaskedAutoencoder, *inputs, seed: int = 0) -> dict[str, Tensor]:
    """The loss and the gradient of every parameter."""
    model.zero_grad()
    torch.manual_seed(seed)  # of drop path
    loss = run(model, *inputs)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    return {"loss": loss.detach(), **gradients}


def assert_same(got: dict[str, Tensor], expected: dict[str, Tensor], **tolerance) -> None:
    assert got.keys() == expected.keys()
    for name in got:
        torch.testing.assert_close(got[name], expected[name], msg=name, **tolerance)


@pytest.fixture
def build(random_frames):
    """A function that makes a model whose biases and mask token are not 0, clips and masks."""

    def make(spec: MaskSpec, **overrides):
        config = MAEConfig(**{**SHAPE, **overrides})
        torch.manual_seed(1)
        model = MaskedAutoencoder(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
        generator = torch.Generator().manual_seed(2)
        masks = Masks.sample(4, config.grid, spec, generator=generator)
        return model, random_frames(4, 6, 48, 48), masks

    return make


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("name", SPECS)
def test_loss_and_every_gradient_in_float64(name, depth, build):
    model, frames, masks = build(SPECS[name], decoder_depth=depth)
    padded = ("running cell, padded", "all in the loss", "skip seen")
    assert (masks.decoder_count is not None) == (name in padded)
    model.double()
    inputs = frames, masks
    assert_same(
        result(shared_loss, model, *inputs), result(plain_loss, model, *inputs),
        rtol=1e-9, atol=1e-12,
    )  # fmt: skip


@pytest.mark.parametrize("impl", ["auto", "reference", pytest.param("native", marks=native)])
@pytest.mark.parametrize("depth", [1, 2])
def test_every_backend(depth, impl, build):
    model, *inputs = build(SPECS["running cell, padded"], decoder_depth=depth)
    with forced(impl):
        got, expected = (result(run, model, *inputs) for run in (shared_loss, plain_loss))
    assert_same(got, expected, rtol=1e-4, atol=1e-6)


def test_masks_made_of_booleans_and_one_clip(build):
    """Another pattern in each clip; a single clip shares with nobody."""
    model, frames, _ = build(SPECS["none"])
    model.double()
    generator = torch.Generator().manual_seed(3)
    order = torch.rand(4, 2, 27, generator=generator).argsort(-1)
    masks = Masks.from_bool(order[:, 0] >= 7, order[:, 1] >= 13, grid=model.config.grid)
    for some in (slice(None), slice(1)):
        own = Masks(
            masks.grid,
            *(t[some] for t in (masks.visible, masks.decoder, masks.loss_slot, masks.loss_index)),
            None if masks.loss_weight is None else masks.loss_weight[some],
        )
        got, expected = (result(run, model, frames[some], own) for run in (shared_loss, plain_loss))
        assert_same(got, expected, rtol=1e-9, atol=1e-12)


def test_drop_path_and_checkpointing(build):
    model, *inputs = build(SPECS["running cell, padded"], decoder_depth=3)
    model.double()
    for rate, block in zip((0.3, 0.5, 0.7), model.decoder.blocks, strict=True):
        block.drop_path.probability = rate
    expected = result(plain_loss, model, *inputs, seed=5)
    assert_same(result(shared_loss, model, *inputs, seed=5), expected, rtol=1e-9, atol=1e-12)
    model.decoder.blocks.activation_checkpointing = True
    assert_same(result(shared_loss, model, *inputs, seed=5), expected, rtol=1e-9, atol=1e-12)


@pytest.fixture
def compiler():
    """A fresh one: another test's shapes would make sizes symbolic."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("depth", [1, 2])
def test_one_graph(depth, checkpointing, build):
    model, *inputs = build(SPECS["running cell, padded"], decoder_depth=depth)
    expected = result(shared_loss, model, *inputs)
    model.decoder.blocks.activation_checkpointing = checkpointing
    whole = torch.compile(model, fullgraph=True, backend="aot_eager")

    def compiled_loss(_, *inputs):
        return whole(*inputs).loss

    assert_same(result(compiled_loss, model, *inputs), expected)


def test_autocast_is_no_worse_than_before(build):
    """Distance of all gradients from fp32's, over several draws."""
    distances: dict[str, list[Tensor]] = {"shared": [], "plain": []}
    model, frames, _ = build(SPECS["none"], decoder_width=64)
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        masks = Masks.sample(4, model.config.grid, SPECS["none"], generator=generator)
        exact = result(plain_loss, model, frames, masks)
        for kind, run in (("shared", shared_loss), ("plain", plain_loss)):
            with torch.autocast("cpu", torch.bfloat16):
                rough = result(run, model, frames, masks)
            away = [
                (rough[name] - exact[name]).norm() / exact[name].norm()
                for name in exact
                if name != "loss"
            ]
            distances[kind].append(torch.stack(away).mean())
    shared, plain = (torch.stack(distances[kind]).mean() for kind in ("shared", "plain"))
    assert shared < 1.02 * plain


def test_another_grid_and_dtype(random_frames, build):
    """Positions of another grid are computed in fp32, whatever the model's dtype."""
    model, *_ = build(SPECS["none"])
    grid = replace(model.config.grid, slots=2)
    masks = Masks.sample(3, grid, SPECS["none"], generator=torch.Generator().manual_seed(0))
    frames = random_frames(3, 4, 48, 48)
    model.double()
    got, expected = (result(run, model, frames, masks) for run in (shared_loss, plain_loss))
    assert_same(got, expected, rtol=1e-6, atol=1e-9)
