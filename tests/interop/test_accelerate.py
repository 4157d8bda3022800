"""accelerate: the same loss and gradients as before, in place, and the way back."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from benchmarks.official.step import normalized_images, pretraining_loss
from tests.support import stand_ins
from tests.support.official_models import (
    GRID,
    SPECS,
    assert_equal,
    classifier,
    frames,
    loss_of,
    masks_of,
    pretraining,
    randomise,
)
from videomae_fast import Masks, accelerate
from videomae_fast.errors import AccelerationError
from videomae_fast.interop import load_into
from videomae_fast.interop.acceleration import views


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


SETTINGS = [
    {},
    {"drop_path": 0.4},
    {"init_values": 0.5},
    {"drop_path": 0.4, "init_values": 0.5, "with_cp": True},
    {"mlp_ratio": 48 / 11, "heads": 1, "decoder_depth": 1},
]


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_pretraining_is_the_same(kind, settings):
    model = pretraining(**settings).train()
    assert_equal(accelerate(model).compare(loss_of(kind)))
    assert_equal(accelerate_again(model).compare(loss_of(kind)))


def accelerate_again(model):
    """Undone and done once more, in eval mode."""
    for module in model.modules():
        module.__class__ = vars(type(module)).get("_original", type(module))
    return accelerate(model.eval())


@pytest.mark.parametrize("settings", [*SETTINGS[:4], {"use_mean_pooling": False}], ids=str)
def test_classification_is_the_same(settings):
    model = classifier(**settings).train()
    images, labels = normalized_images(frames()), torch.tensor([0, 3, 1])
    report = accelerate(model)
    assert_equal(report.compare(lambda m: nn.functional.cross_entropy(m(images), labels)))


@pytest.mark.parametrize("name", ["pretrain_tiny_dual", "pretrain_tiny_tube"])
@pytest.mark.parametrize("accelerated", [False, True])
def test_golden_values_hold_for_the_stand_in_and_after(golden, name, accelerated):
    data = golden(name)
    shape = data.shape
    model = stand_ins.PretrainVisionTransformer(
        img_size=shape["image_size"], patch_size=shape["patch_size"], width=shape["width"],
        depth=shape["depth"], heads=shape["heads"], decoder_width=shape["decoder_width"],
        decoder_depth=shape["decoder_depth"], decoder_heads=shape["decoder_heads"],
        all_frames=shape["frames"], mlp_ratio=shape.get("mlp_ratio", 4.0),
    )  # fmt: skip
    load_into(model, data.under("param/"))
    if accelerated:
        accelerate(model)
    encoder_mask = data["encoder_mask"]
    decoder_mask = data.get("decoder_mask")
    if decoder_mask is None:
        decoder_mask = ~encoder_mask
    loss = pretraining_loss(
        model, normalized_images(data["frames"]), encoder_mask, decoder_mask,
        tubelet=2, patch=shape["patch_size"], autocast=None,
    )  # fmt: skip
    assert float(loss.detach()) == pytest.approx(float(data["loss"]), rel=1e-5)
    loss.backward()
    for key, norm in data.under("gradnorm/").items():
        found = dict(model.named_parameters())[key].grad.norm()
        assert float(found) == pytest.approx(float(norm), rel=1e-4), key


def test_golden_classifier(golden):
    data = golden("classify_tiny")
    shape = data.shape
    model = stand_ins.VisionTransformer(
        img_size=shape["image_size"], patch_size=shape["patch_size"], width=shape["width"],
        depth=shape["depth"], heads=shape["heads"], all_frames=shape["frames"],
        num_classes=data["logits"].shape[1],
    )  # fmt: skip
    load_into(model, data.under("param/"))
    accelerate(model)
    found = model(normalized_images(data["frames"]))
    torch.testing.assert_close(found, data["logits"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", SPECS)
def test_frames_and_masks_replace_clips_and_bools(kind):
    model = pretraining()
    masks, clips = masks_of(kind), frames()
    encoder_mask, decoder_mask = masks.to_bool()
    expected = model(normalized_images(clips), encoder_mask, decoder_mask)
    accelerate(model)
    torch.testing.assert_close(model(clips, masks), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(clips, encoder_mask, decoder_mask), model(clips, masks))
    other = classifier()
    expected = other(normalized_images(clips))
    accelerate(other)
    torch.testing.assert_close(other(clips), expected, rtol=1e-4, atol=1e-5)


def test_parts_that_are_called_alone_are_the_same():
    model = pretraining(drop_path=0.2).eval()
    images, (encoder_mask, _) = normalized_images(frames()), masks_of("dual").to_bool()
    sequence = torch.randn(2, 7, 16)
    tokens = torch.randn(2, 5, 32)

    def parts():
        return [
            model.encoder(images, encoder_mask),
            model.encoder.forward_features(images, encoder_mask),
            model.decoder(sequence, 3),
            model.decoder(sequence, 0),
            model.encoder.blocks[1](tokens),
            model.encoder.blocks[1].attn(tokens),
            model.encoder.blocks[1].mlp(tokens),
            model.encoder.patch_embed(images),
        ]

    before = parts()
    accelerate(model)
    for found, expected in zip(parts(), before, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_nothing_but_the_computation_changes_and_undo_restores_it():
    model = pretraining()
    optimizer = torch.optim.AdamW(model.parameters())
    names, held = list(model.state_dict()), dict(model.named_parameters())
    buffers = [name for name, _ in model.named_buffers()]
    kinds = [type(module) for module in model.modules()]
    tables = model.pos_embed, model.encoder.pos_embed
    loss = loss_of("dual")
    before = loss(model).item()
    report = accelerate(model)
    assert list(model.state_dict()) == names
    assert [name for name, _ in model.named_buffers()] == buffers
    for name, parameter in model.named_parameters():
        assert parameter is held[name]
    assert isinstance(model, stand_ins.PretrainVisionTransformer)
    assert all(isinstance(m, kind) for m, kind in zip(model.modules(), kinds, strict=True))
    assert type(model).__name__ == "PretrainVisionTransformer"
    loss(model).backward()
    optimizer.step()
    assert loss(model).item() != before
    report.undo()
    assert [type(module) for module in model.modules()] == kinds
    assert tables[0] is model.pos_embed
    assert tables[1] is model.encoder.pos_embed
    assert "(undone)" in str(report)
    report.undo()
    accelerate(model)


def test_the_report_says_what_was_done():
    text = str(accelerate(pretraining()))
    assert "the official pre-training model, accelerated" in text
    assert "encoder.blocks.* (2): LayerNorm with residual" in text
    assert "kept      the loss" in text


def test_compare_sees_a_difference():
    model = pretraining()
    report = accelerate(model)
    calls = []

    def loss(m):
        calls.append(m)
        return loss_of("dual")(m) * (1 + 0.01 * len(calls))

    assert report.compare(loss).loss_error > 1e-3
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("kind", SPECS)
def test_bf16_is_no_worse_than_the_original(kind):
    """Distance of all gradients from fp32's; one batch alone differs by a fifth either way."""
    originals, ours = zip(*(bf16_distances(kind, seed) for seed in range(5)), strict=True)
    assert sum(ours) <= 1.05 * sum(originals)


def bf16_distances(kind, seed):
    """Of the original and of the accelerated model, relative to the norm of all gradients."""
    generator = torch.Generator().manual_seed(seed)
    clips = torch.randint(0, 256, (6, 8, 32, 32, 3), dtype=torch.uint8, generator=generator)
    masks = Masks.from_seeds(torch.arange(6) + 10 * seed, GRID, SPECS[kind])
    images, (encoder_mask, decoder_mask) = normalized_images(clips), masks.to_bool()
    model = pretraining(depth=4, decoder_depth=3)

    def gradients(dtype):
        model.zero_grad()
        loss = pretraining_loss(
            model, images, encoder_mask, decoder_mask, tubelet=2, patch=16, autocast=dtype
        )
        loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()]).double()

    truth, original = gradients(None), gradients(torch.bfloat16)
    accelerate(model)
    found = gradients(torch.bfloat16)
    return [float((one - truth).norm() / truth.norm()) for one in (original, found)]


def test_a_model_in_bf16():
    model = pretraining().to(torch.bfloat16).eval()
    images, (encoder_mask, decoder_mask) = normalized_images(frames()), masks_of("dual").to_bool()
    images = images.to(torch.bfloat16)
    before = model(images, encoder_mask, decoder_mask)
    accelerate(model)
    after = model(images, encoder_mask, decoder_mask)
    assert after.dtype == before.dtype
    torch.testing.assert_close(after.float(), before.float(), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("first", ["accelerate", "wrap"])
def test_under_distributed_data_parallel(first, tmp_path):
    model = pretraining()
    images, (encoder_mask, decoder_mask) = normalized_images(frames()), masks_of("dual").to_bool()
    expected = model(images, encoder_mask, decoder_mask)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        if first == "accelerate":
            accelerate(model)
        wrapped = nn.parallel.DistributedDataParallel(model)
        if first == "wrap":
            accelerate(wrapped)
        found = wrapped(images, encoder_mask, decoder_mask)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        found.sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
    finally:
        torch.distributed.destroy_process_group()


def test_hooks_see_what_they_saw_before():
    model = pretraining()
    seen = []
    loss = loss_of("dual")
    hooks = [
        module.register_forward_hook(lambda _, __, out: seen.append(out))
        for module in (
            model.encoder, model.encoder.blocks[0], model.encoder.blocks[1].attn,
            model.encoder.blocks[1].mlp.act, model.decoder.blocks[1], model.decoder,
        )
    ]  # fmt: skip
    loss(model)
    before = seen.copy()
    seen.clear()
    report = accelerate(model)
    loss(model)
    assert len(seen) == len(before) == 6
    for found, expected in zip(seen, before, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for hook in hooks:
        hook.remove()
    assert_equal(report.compare(loss))


class LowRank(nn.Linear):
    """As adapters do it: another module in a linear layer's place."""

    def forward(self, x):
        return super().forward(x) + x.mean(-1, keepdim=True)


def test_a_layer_replaced_later_is_not_passed_over():
    model = pretraining()
    report = accelerate(model)
    old = model.encoder.blocks[1].mlp.fc1
    model.encoder.blocks[1].mlp.fc1 = LowRank(old.in_features, old.out_features)
    assert_equal(report.compare(loss_of("dual")))


def test_parameters_replaced_later_count():
    model = pretraining()
    report = accelerate(model)
    model.encoder.blocks[0].attn.q_bias = nn.Parameter(torch.randn(32))
    model.encoder.blocks[0].norm1.eps = 0.3
    assert_equal(report.compare(loss_of("dual")))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_is_a_whole_model(copied):
    model = pretraining()
    accelerate(model)
    twin = copied(model)
    loss = loss_of("dual")
    assert loss(twin).item() == loss(model).item()
    assert {id(p) for p in twin.parameters()}.isdisjoint({id(p) for p in model.parameters()})


def test_tables_follow_the_parameters():
    model = pretraining()
    tables = model.pos_embed, model.encoder.pos_embed
    report = accelerate(model)
    model.to("meta")
    assert model.pos_embed.device.type == model.encoder.pos_embed.device.type == "meta"
    report.undo()
    assert model.pos_embed is tables[0]
    assert model.encoder.pos_embed is tables[1]


class Renamed(stand_ins.PretrainVisionTransformer):
    pass


class Changed(stand_ins.PretrainVisionTransformer):
    def forward(self, x, mask, decode_mask=None):
        return 2 * super().forward(x, mask, decode_mask)


def test_a_subclass_with_its_own_forward_is_left_to_it():
    assert_equal(accelerate(randomise(Renamed())).compare(loss_of("dual")))
    report = accelerate(randomise(Changed()))
    assert "Changed.forward is other code than the known PretrainVisionTransformer" in str(report)
    assert_equal(report.compare(loss_of("dual")))


KEPT = {
    "dropout": (lambda: pretraining(drop=0.1), "encoder.blocks.*.attn (2): dropout within"),
    "gelu": (lambda: pretraining(act=nn.GELU("tanh")), "not GELU in its exact form"),
    "relu": (lambda: pretraining(act=nn.ReLU()), "mlp (2): the activation is ReLU"),
    "cosine": (lambda: pretraining(attention=stand_ins.CosAttention), "CosAttention.forward is"),
    "no bias": (lambda: pretraining(qkv_bias=False), "it lacks a bias"),
    "scale": (lambda: changed("encoder.blocks.1.attn", scale=0.5), "scaled by 0.5"),
    "norm": (
        lambda: changed("decoder.blocks.0", norm2=nn.RMSNorm(16)), "decoder.blocks.*: a norm is RMS"
    ),
    "adapter": (lambda: changed("encoder.blocks.0.mlp", fc1=LowRank(32, 128)), "is a LowRank"),
}  # fmt: skip


def changed(path: str, **attributes) -> nn.Module:
    model = pretraining()
    for name, value in attributes.items():
        setattr(model.get_submodule(path), name, value)
    return model


@pytest.mark.parametrize("name", KEPT)
def test_what_is_not_known_is_left_to_its_own_code(name):
    build, why = KEPT[name]
    report = accelerate(build())
    assert why in str(report)
    assert_equal(report.compare(loss_of("dual")))


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda: nn.Sequential(nn.Linear(2, 2)), "Sequential is not a model that accelerate knows"),
        (
            lambda: changed("encoder.patch_embed", proj=nn.Conv3d(3, 32, 16, 8)),
            "PretrainVisionTransformer: its own code fails on random input",
        ),
        (lambda: pretraining().to("meta"), "on the meta device"),
    ],
)
def test_what_it_can_not_do_is_an_error_and_changes_nothing(build, why):
    model = build()
    kinds = [type(module) for module in model.modules()]
    with pytest.raises(AccelerationError, match=why):
        accelerate(model)
    assert [type(module) for module in model.modules()] == kinds


def test_twice_is_an_error():
    model = pretraining()
    accelerate(model)
    with pytest.raises(AccelerationError, match="accelerated already"):
        accelerate(model)


def test_bad_inputs_are_told():
    model = pretraining()
    accelerate(model)
    encoder_mask, decoder_mask = masks_of("dual").to_bool()
    uneven = encoder_mask.clone()
    uneven[0] = True
    uneven[0, 0] = False
    with pytest.raises(ValueError, match="as many chosen tokens"):
        model(normalized_images(frames()), uneven, decoder_mask)
    with pytest.raises(ValueError, match="leave decode_mask out"):
        model(frames(), masks_of("dual"), decoder_mask)
    with pytest.raises(ValueError, match="frames must be uint8"):
        model(frames(size=48), masks_of("dual"))
    with pytest.raises(ValueError, match="2 masks of"):
        model(frames(), masks_of("dual", 2))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x, mask: (x[:, :2], mask),
        lambda x, mask: (x[:, :, :4], mask),
        lambda x, mask: (x[..., :16], mask),
        lambda x, mask: (x, mask.float()),
        lambda x, mask: (x, mask[:, :8]),
        lambda x, mask: (x[:2], mask),
    ],
)
def test_what_the_original_refuses_is_refused_in_its_words(spoil):
    model = pretraining()
    encoder_mask, _ = masks_of("dual").to_bool()
    inputs = spoil(normalized_images(frames()), encoder_mask)
    with pytest.raises(Exception) as expected:  # noqa: PT011
        model(*inputs)
    accelerate(model)
    with pytest.raises(expected.type) as found:
        model(*inputs)
    assert str(found.value) == str(expected.value)


class Asked(Exception):
    """By which backend attention was to run."""


def test_deterministic_attention_is_by_kernels_that_add_up_in_order(monkeypatch):
    model = pretraining()
    with torch.no_grad():
        before = loss_of("dual")(model)
    report = accelerate(model, deterministic=True)
    with torch.no_grad():  # a CPU's attention always is
        torch.testing.assert_close(loss_of("dual")(model), before)

    def asked(*args, impl, **options):
        raise Asked(impl)

    monkeypatch.setattr("videomae_fast.models.transformer.packed_attention", asked)
    on_gpu = views.attention_impl
    monkeypatch.setattr(
        views, "attention_impl", lambda block, device: on_gpu(block, torch.device("cuda"))
    )
    with pytest.raises(Asked, match="triton"):
        loss_of("dual")(model)
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(Asked, match="auto"):  # torch sees to it itself
            loss_of("dual")(model)
    finally:
        torch.use_deterministic_algorithms(False)
    report.undo()
    assert not any(views.DETERMINISTIC in vars(module) for module in model.modules())
    accelerate(model, prove=False)
    with pytest.raises(Asked, match="auto"):
        loss_of("dual")(model)


def test_attention_of_the_models_own_is_not_promised_to_be_deterministic():
    model = classifier()
    model.blocks[1].attn.attn_drop.p = 0.1
    why = r"own code: blocks\.\*\.attn: dropout within\. Call torch\.use_deterministic"
    with pytest.raises(AccelerationError, match=why):
        accelerate(model, deterministic=True)
    accelerate(model, prove=False)
