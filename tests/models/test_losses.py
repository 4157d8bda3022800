"""The functional loss against the official one, transcribed, and against our model's."""

from __future__ import annotations

import pytest
import torch

from benchmarks.official.step import normalized_images, pretraining_loss
from videomae_fast import MAEConfig, MaskedAutoencoder, Masks, MaskSpec, masked_pixel_loss
from videomae_fast.masks import Grid

# frames, height, width, tubelet, patch
SHAPES = [(4, 32, 64, 2, 16), (4, 28, 42, 1, 7), (8, 32, 32, 2, 4)]
V2 = MaskSpec(encoder_ratio=0.5)
V1 = MaskSpec(encoder_ratio=0.5, decoder="none")


def case(shape, spec, batch=3):
    """Frames, masks, and predictions of all decoded tokens."""
    *size, tubelet, patch = shape
    generator = torch.Generator().manual_seed(sum(shape))
    frames = torch.randint(0, 256, (batch, *size, 3), dtype=torch.uint8, generator=generator)
    grid = Grid(size[0] // tubelet, size[1] // patch, size[2] // patch)
    masks = Masks.sample(batch, grid, spec, generator=generator)
    values = 3 * tubelet * patch**2
    prediction = torch.randn(batch, masks.decoder.shape[1], values, generator=generator)
    return frames, masks, prediction


def official(prediction, frames, masks, tubelet, patch):
    encoder, decoder = masks.to_bool()
    return pretraining_loss(
        lambda *_: prediction,
        normalized_images(frames),
        encoder,
        decoder,
        tubelet=tubelet,
        patch=patch,
    )


def compare(found, leaf, truth, exact):
    torch.testing.assert_close(found.detach(), truth.detach(), rtol=1e-5, atol=0)
    ours, theirs = (torch.autograd.grad(a, b)[0] for a, b in ((found, leaf), (truth, exact)))
    assert ours.dtype == leaf.dtype
    error = (ours.double() - theirs.double()).norm() / theirs.double().norm()
    assert error < {torch.float32: 1e-4, torch.bfloat16: 2**-8}[leaf.dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spec", [V2, V1], ids=["V2", "V1"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_the_official_loss(shape, spec, dtype):
    """Of all decoded tokens, as the official models return them, and of those in the loss."""
    frames, masks, prediction = case(shape, spec)
    if spec is V2:
        assert masks.loss_index.shape[1] < masks.decoder.shape[1]
    leaf, exact = (prediction.to(dtype).requires_grad_() for _ in range(2))
    truth = official(exact, frames, masks, *shape[3:])
    compare(masked_pixel_loss(leaf, frames, masks), leaf, truth, exact)
    rows = masks.loss_slot.long()[..., None].expand(-1, -1, leaf.shape[-1])
    truth = official(exact, frames, masks, *shape[3:])
    compare(masked_pixel_loss(leaf.gather(1, rows), frames, masks), leaf, truth, exact)


def test_clips_with_different_numbers_in_the_loss():
    """Padded lists, as long as the decoder's: `tokens` has to say which of the two is meant."""
    spec = MaskSpec(encoder="random", encoder_ratio=0.75, decoder="running-cell")
    frames, masks, prediction = case((8, 32, 32, 2, 4), spec, batch=6)
    assert masks.loss_weight is not None
    assert masks.loss_index.shape == masks.decoder.shape
    assert len(set(masks.loss_weight.sum(1).tolist())) > 1
    leaf, exact = (prediction.clone().requires_grad_() for _ in range(2))
    with pytest.raises(ValueError, match='say tokens="loss" or tokens="decoder"'):
        masked_pixel_loss(leaf, frames, masks)
    truth = official(exact, frames, masks, 2, 4)
    compare(masked_pixel_loss(leaf, frames, masks, tokens="decoder"), leaf, truth, exact)
    rows = masks.loss_slot.long()[..., None].expand(-1, -1, leaf.shape[-1])
    chosen, truth = leaf.gather(1, rows), official(exact, frames, masks, 2, 4)
    compare(masked_pixel_loss(chosen, frames, masks, tokens="loss"), leaf, truth, exact)
    wrong = masked_pixel_loss(prediction, frames, masks, tokens="loss")
    assert not torch.isclose(wrong, truth, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"normalize": False}, {"ignore_flat": True}], ids=str)
def test_it_is_our_model_s_loss(options):
    config = MAEConfig(
        image_size=32, frames=4, width=32, depth=1, heads=2,
        decoder_width=16, decoder_depth=1, decoder_heads=2,
    )  # fmt: skip
    frames, masks, _ = case((4, 32, 32, 2, 16), V2, batch=2)
    frames[0] = 3
    masks = masks.weighted(torch.tensor([1.0, 0.5]))
    names = {"normalize": "normalize_target", "ignore_flat": "ignore_flat_cubes"}
    model = MaskedAutoencoder(config, **{names[name]: value for name, value in options.items()})
    output = model(frames, masks, return_prediction=True)
    loss = masked_pixel_loss(output.prediction, frames, masks, **options)
    assert torch.equal(loss, output.loss)
    nothing = masks.weighted(torch.zeros(2))
    assert masked_pixel_loss(output.prediction, frames, nothing, **options) == 0


def test_errors_name_what_would_fit():
    frames, masks, prediction = case(SHAPES[0], V2, batch=2)
    with pytest.raises(
        ValueError, match=r"\[2, \d+, 1536\] \(tokens in the loss\) or \[2, 8, 1536\]"
    ):
        masked_pixel_loss(prediction[:, 1:, 1:], frames, masks)
    with pytest.raises(ValueError, match=r"must be \[2, 8, 1536\], got"):
        masked_pixel_loss(prediction[:, 1:], frames, masks, tokens="decoder")
    with pytest.raises(ValueError, match="as they are before normalisation"):
        masked_pixel_loss(prediction, frames.float(), masks)
    with pytest.raises(ValueError, match="don't fit frames"):
        masked_pixel_loss(prediction, frames[:, :, :24], masks)
    with pytest.raises(ValueError, match="don't fit frames"):
        masked_pixel_loss(prediction, frames[:1], masks)
    with pytest.raises(ValueError, match='"loss" or "decoder", not'):
        masked_pixel_loss(prediction, frames, masks, tokens="all")
