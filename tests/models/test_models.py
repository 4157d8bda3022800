"""Sizes, shapes, options and errors of the models."""

from __future__ import annotations

import pytest
import torch

from benchmarks.official.model import OfficialPretraining
from videomae_fast import MAEConfig, MaskedAutoencoder, Masks, MaskSpec, VideoClassifier
from videomae_fast.masks import Grid
from videomae_fast.models.positions import sinusoid_table
from videomae_fast.models.transformer import Mlp

TINY = {
    "image_size": 32,
    "frames": 8,
    "width": 32,
    "depth": 2,
    "heads": 2,
    "decoder_width": 16,
    "decoder_depth": 2,
    "decoder_heads": 2,
}
SPEC = MaskSpec(encoder_ratio=0.5)


def tiny(**overrides) -> MAEConfig:
    return MAEConfig(**{**TINY, **overrides})


def masks_for(config: MAEConfig, batch: int, spec: MaskSpec = SPEC, seed: int = 0) -> Masks:
    return Masks.sample(batch, config.grid, spec, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", [MaskedAutoencoder, OfficialPretraining])
@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ("small", 24_029_376),
        ("base", 94_210_944),
        ("large", 317_782_016),
        ("huge", 645_659_392),
        ("giant", 1_026_306_560),
    ],
)
def test_parameter_counts(size, parameters, kind):
    with torch.device("meta"):
        model = kind(MAEConfig.from_size(size))
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_config_round_trip_and_errors():
    config = MAEConfig.from_size("giant", decoder_depth=2, image_size=(112, 224))
    assert MAEConfig.from_dict(config.to_dict()) == config
    assert config.grid == Grid(8, 8, 16)
    assert MAEConfig.from_dict({**config.to_dict(), "image_size": [112, 224]}) == config
    with pytest.raises(ValueError, match="unknown model size"):
        MAEConfig.from_size("tiny")
    with pytest.raises(ValueError, match="image height 100 is not a positive multiple"):
        MAEConfig(image_size=100)
    with pytest.raises(ValueError, match="frames 15"):
        MAEConfig(frames=15)
    with pytest.raises(ValueError, match="heads"):
        MAEConfig(heads=7)
    with pytest.raises(ValueError, match="colour"):
        MAEConfig.from_dict({"colour": 3})


@pytest.mark.parametrize("frames", [4, 8, 12])
@pytest.mark.parametrize("size", [(32, 32), (48, 16), (16, 48)])
def test_other_sizes_than_the_models_own(frames, size, random_frames):
    """Pre-training and classification take clips of another grid, with its own positions or not."""
    config = tiny()
    clips = random_frames(2, frames, *size)
    grid = Grid.of(frames, size, 2, 16)
    torch.manual_seed(0)
    model = MaskedAutoencoder(config, other_grids="recomputed")
    stretched = MaskedAutoencoder(config)
    stretched.load_state_dict(model.state_dict())
    spec = MaskSpec(encoder_ratio=0.5, decoder="none")
    masks = Masks.sample(2, grid, spec, generator=torch.Generator().manual_seed(0))
    native = MaskedAutoencoder(tiny(frames=frames, image_size=size))
    native.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(clips, masks).loss, native(clips, masks).loss)
    same = torch.equal(stretched(clips, masks).loss, model(clips, masks).loss)
    assert same == (grid == config.grid)
    classifier = VideoClassifier(config, 3)
    assert classifier(clips).shape == (2, 3)


def test_sizes_that_do_not_divide_are_errors(random_frames):
    model = VideoClassifier(tiny(), 3)
    with pytest.raises(ValueError, match="frame count 7"):
        model(random_frames(1, 7, 32, 32))
    with pytest.raises(ValueError, match="frame width 40"):
        model(random_frames(1, 8, 32, 40))
    with pytest.raises(ValueError, match="must be uint8"):
        model(random_frames(1, 8, 32, 32).int())
    with pytest.raises(ValueError, match="channels last"):
        model(random_frames(1, 8, 32, 32).permute(0, 4, 1, 2, 3))
    mae = MaskedAutoencoder(tiny())
    with pytest.raises(ValueError, match="don't fit"):
        mae(random_frames(2, 8, 32, 32), masks_for(tiny(), 3))


def test_only_tokens_in_the_loss_are_computed_but_nothing_changes(random_frames):
    """The last block's queries: the same predictions as when every decoded token asks."""
    config = tiny()
    torch.manual_seed(1)
    model = MaskedAutoencoder(config).double()
    clips = random_frames(3, 8, 32, 32)
    masks = masks_for(config, 3)
    every = Masks.from_bool(*masks.to_bool(), grid=config.grid, loss_over="all")
    some = model(clips, masks, return_prediction=True).prediction
    all_of_them = model(clips, every, return_prediction=True).prediction
    picked = all_of_them.gather(1, masks.loss_slot.long()[..., None].expand_as(some))
    torch.testing.assert_close(some, picked)


def test_padding_of_the_lists_changes_nothing(random_frames):
    """3 slots on an odd grid: clips differ in how much is decoded and in the loss."""
    config = tiny(frames=6, image_size=48)
    spec = MaskSpec(encoder_ratio=0.6)
    counts = spec.counts(config.grid)
    assert not counts.decoder_fixed
    assert not counts.loss_fixed
    torch.manual_seed(2)
    model = MaskedAutoencoder(config).double()
    clips = random_frames(6, 6, 48, 48)
    masks = masks_for(config, 6, spec)
    assert len(set(masks.decoder_count.tolist())) > 1
    encoder, decoder = masks.to_bool()
    loss_sum, weight = 0.0, 0.0
    for i in range(6):
        one = Masks.from_bool(encoder[i : i + 1], decoder[i : i + 1], grid=config.grid)
        output = model(clips[i : i + 1], one)
        loss_sum += float(output.loss_sum)
        weight += float(output.loss_weight)
    batch = model(clips, masks)
    assert float(batch.loss_sum) == pytest.approx(loss_sum, rel=1e-10)
    assert float(batch.loss_weight) == weight
    batch.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_left_out_clips_do_not_count(random_frames):
    config = tiny()
    torch.manual_seed(3)
    model = MaskedAutoencoder(config)
    clips, masks = random_frames(3, 8, 32, 32), masks_for(config, 3)
    ok = torch.tensor([True, False, True])
    other = clips.clone()
    other[1] = 0
    losses = [model(c, masks.weighted(ok)) for c in (clips, other)]
    assert float(losses[0].loss) == pytest.approx(float(losses[1].loss), rel=1e-6)
    two = [
        model(clips[i : i + 1], Masks.from_bool(*(m[i : i + 1] for m in masks.to_bool()),
                                                grid=config.grid)) for i in (0, 2)
    ]  # fmt: skip
    expected = sum(float(o.loss_sum) for o in two) / sum(float(o.loss_weight) for o in two)
    assert float(losses[0].loss) == pytest.approx(expected, rel=1e-5)
    nothing = model(clips, masks.weighted(torch.zeros(3)))
    assert float(nothing.loss) == 0.0


def test_skip_seen_leaves_out_what_the_encoder_saw(random_frames):
    config = tiny()
    spec = MaskSpec(encoder_ratio=0.5, skip_seen=True)
    exact = masks_for(config, 2)
    fast = masks_for(config, 2, spec)
    assert torch.equal(fast.visible, exact.visible)
    assert torch.equal(fast.decoder, exact.loss_index)
    assert torch.equal(fast.loss_index, exact.loss_index)
    model = MaskedAutoencoder(config)
    clips = random_frames(2, 8, 32, 32)
    assert float(model(clips, fast).loss) != float(model(clips, exact).loss)


def test_flat_cubes_are_left_out_on_request(random_frames):
    config = tiny()
    clips = random_frames(1, 8, 32, 32)
    clips[:, :, :16] = 7
    clips[:, :, 3, 5] = 8  # one grey level of noise: amplified to 22 standard deviations
    masks = masks_for(config, 1)
    torch.manual_seed(0)
    plain = MaskedAutoencoder(config)
    careful = MaskedAutoencoder(config, ignore_flat_cubes=True)
    careful.load_state_dict(plain.state_dict())
    rows = masks.loss_index // 2 % 2
    assert float(careful(clips, masks).loss_weight) == int((rows == 1).sum())
    assert float(plain(clips, masks).loss_weight) == masks.loss_index.shape[1]


def test_activation_checkpointing_changes_nothing(random_frames):
    config = tiny(layer_scale=0.1)
    torch.manual_seed(0)
    plain = MaskedAutoencoder(config)
    saving = MaskedAutoencoder(config, activation_checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    clips, masks = random_frames(2, 8, 32, 32), masks_for(config, 2)
    for model in (plain, saving):
        model(clips, masks).loss.backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_official_options_and_their_keys():
    config = tiny(learned_positions=True, layer_scale=1e-5)
    keys = MaskedAutoencoder(config).state_dict()
    assert keys["encoder.pos_embed"].shape == (1, config.grid.tokens, 32)
    assert float(keys["encoder.blocks.0.gamma_1"].mean()) == pytest.approx(1e-5)
    assert "decoder.blocks.1.gamma_2" in keys
    with torch.no_grad(), pytest.raises(ValueError, match="learned positions are for"):
        VideoClassifier(config, 2, other_grids="recomputed")(
            torch.zeros(1, 4, 32, 32, 3, dtype=torch.uint8)
        )


def test_drop_path_rises_linearly_and_keeps_the_mean(random_frames):
    model = VideoClassifier(tiny(depth=3), 5, drop_path=0.4, head_dropout=0.5, init_scale=0.5)
    assert [round(b.drop_path.probability, 3) for b in model.blocks] == [0.0, 0.2, 0.4]
    batch = torch.zeros(20_000, 1, 1)
    model.train()
    factor = model.blocks[2].drop_path(batch)
    torch.testing.assert_close(factor.unique(), torch.tensor([0.0, 1 / 0.6]))
    assert float(factor.mean()) == pytest.approx(1.0, abs=0.02)
    model.eval()
    assert model.blocks[2].drop_path(batch) is None
    clips = random_frames(2, 8, 32, 32)
    assert torch.equal(model(clips), model(clips))


def test_init_scale():
    torch.manual_seed(0)
    one = VideoClassifier(tiny(), 7, init_scale=1.0)
    torch.manual_seed(0)
    small = VideoClassifier(tiny(), 7, init_scale=0.001)
    torch.testing.assert_close(one.head.weight * 0.001, small.head.weight)


def test_initialisation_is_the_official():
    torch.manual_seed(0)
    model = MaskedAutoencoder(MAEConfig.from_size("small", depth=1, decoder_depth=1))
    weight = model.encoder.blocks[0].mlp.fc1.weight
    bound = (6 / (384 + 1536)) ** 0.5
    assert float(weight.abs().max()) <= bound
    assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.01)
    assert float(model.encoder_to_decoder.weight.abs().max()) <= 384**-0.5
    assert 0 < float(model.mask_token.abs().max()) <= 0.02
    classifier = VideoClassifier(tiny(width=64, depth=1), 3)
    assert float(classifier.blocks[0].mlp.fc1.weight.std()) == pytest.approx(0.02, rel=0.05)


def test_sinusoid_table():
    table = sinusoid_table(5, 6)
    assert table.dtype == torch.float32
    angle = 3 / 10000 ** (2 / 6)
    assert float(table[3, 2]) == pytest.approx(torch.tensor(angle).sin().item(), rel=1e-6)
    assert float(table[3, 3]) == pytest.approx(torch.tensor(angle).cos().item(), rel=1e-6)
    assert "positions" not in "".join(MaskedAutoencoder(tiny()).state_dict())


@pytest.mark.parametrize(("autocast", "compiled"), [(False, False), (True, False), (True, True)])
def test_the_gradient_along_with_the_loss(random_frames, compiled, autocast):
    """The same losses, and the same gradients to the last bit, as loss_sum times the scale."""
    config = tiny(depth=1, decoder_depth=1) if compiled else tiny()  # each layer takes a second
    torch.manual_seed(0)
    model = MaskedAutoencoder(config)
    clips, masks = random_frames(2, 8, 32, 32), masks_for(config, 2)
    masks = masks.weighted(torch.tensor([1.0, 0.5]))
    torch.compiler.reset()  # other tests' sizes would make these symbols, which takes long
    call = torch.compile(model, fullgraph=True, backend="aot_eager") if compiled else model
    results = []
    for scale in (None, 0.125):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = call(clips, masks, gradient_scale=scale)
        assert output.loss.requires_grad == (scale is None)
        if scale is None:
            (0.125 * output.loss_sum).backward()
        else:
            output.backward()
        sums = [output.loss, output.loss_sum, output.loss_weight]
        results.append([t.detach() for t in sums] + [p.grad for p in model.parameters()])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
    with pytest.raises(RuntimeError, match="call the model with gradient_scale"):
        model(clips, masks).backward()


def test_autocast_stays_close(random_frames):
    config = tiny()
    torch.manual_seed(0)
    model = MaskedAutoencoder(config)
    clips, masks = random_frames(2, 8, 32, 32), masks_for(config, 2)
    exact = model(clips, masks).loss
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(clips, masks).loss
    assert rough.dtype == torch.float32
    assert float(rough) == pytest.approx(float(exact), rel=0.02)


def test_padding_an_odd_mlp_width_is_exact():
    torch.manual_seed(0)
    mlp = Mlp(16, 35).double()
    x = torch.randn(2, 3, 16, dtype=torch.float64, requires_grad=True)
    results = []
    for multiple in (1, 8):
        mlp.zero_grad()
        out = mlp._forward(x, multiple)
        (grad,) = torch.autograd.grad(out.square().sum(), x, retain_graph=True)
        out.square().sum().backward(inputs=list(mlp.parameters())[:3])
        gradients = [p.grad.clone() for p in list(mlp.parameters())[:3]]
        results.append([out.detach(), grad, *gradients])
    for plain, padded in zip(*results, strict=True):
        torch.testing.assert_close(padded, plain)


def test_every_layer_norm_takes_its_epsilon_from_the_config():
    config = MAEConfig(
        image_size=32, frames=4, width=32, depth=2, heads=2, decoder_width=16, decoder_depth=1,
        decoder_heads=1, norm_eps=1e-12, final_norm_eps=1e-5,
    )  # fmt: skip
    for model in (MaskedAutoencoder(config), VideoClassifier(config, 3)):
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.LayerNorm):
                expected = 1e-5 if name in ("decoder.norm", "fc_norm") else 1e-12
                assert module.eps == expected, name
    with pytest.raises(ValueError, match="final_norm_eps must be positive"):
        MAEConfig(final_norm_eps=0.0)
