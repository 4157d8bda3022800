"""Hugging Face's real models compute what ours do, after conversion either way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support.random_weights import (
    TINY,
    TOLD,
    TOLD_CLASSIFIER,
    classifier,
    pretraining,
    randomised,
    same,
)
from videomae_fast import MAEConfig, Masks, MaskSpec
from videomae_fast.errors import WeightsError
from videomae_fast.interop import (
    ConversionOptions,
    convert,
    from_hugging_face,
    read_weights,
    with_official_eps,
    write_weights,
)
from videomae_fast.interop.weights.layouts.hugging_face import (
    from_hugging_face_keys,
    to_hugging_face_keys,
)
from videomae_fast.models.positions import sinusoid_table
from videomae_fast.tasks.trained import load_model

transformers = pytest.importorskip("transformers")
GRID = MAEConfig(**TINY).grid
SETTINGS = {
    "image_size": 32,
    "num_frames": 4,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 1,
    "decoder_intermediate_size": 64,
}


def their_model(kind: str, **changed: Any) -> torch.nn.Module:
    settings = {**SETTINGS, "use_mean_pooling": kind != "VideoMAEForPreTraining", **changed}
    config = transformers.VideoMAEConfig(**settings)
    return randomised(getattr(transformers, kind)(config))


def saved(model: torch.nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def clips() -> tuple[Tensor, Tensor]:
    """uint8 [2, 4, 32, 32, 3] and the same normalised, [2, 4, 3, 32, 32]."""
    frames = torch.randint(
        0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(5)
    )
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return frames, ((frames / 255 - mean) / std).permute(0, 1, 4, 2, 3).contiguous()


def assert_same_pretraining(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    """Loss and the gradient of every parameter, for encoder-only masks."""
    frames, images = clips()
    masks = Masks.sample(
        2, GRID, MaskSpec(encoder_ratio=0.5, decoder="none"),
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    mask, _ = masks.to_bool()
    loss, truth = ours(frames, masks).loss, theirs(images, mask).loss
    assert float(loss) == pytest.approx(float(truth), rel=1e-5)
    loss.backward()
    truth.backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    expected = from_hugging_face_keys({n: p.grad for n, p in theirs.named_parameters()})
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert float(expected[name].norm()) > 0, name
        difference = float((gradient - expected[name]).norm() / expected[name].norm())
        assert difference < 1e-4, name


@pytest.mark.parametrize("eps", [1e-12, 1e-6, 1e-3])
@pytest.mark.parametrize("normalize", [True, False])
def test_their_pretraining_becomes_ours(eps: float, normalize: bool, tmp_path: Path) -> None:
    theirs = their_model("VideoMAEForPreTraining", layer_norm_eps=eps, norm_pix_loss=normalize)
    found = from_hugging_face(saved(theirs, tmp_path / "hf"))
    assert (found.config.norm_eps, found.config.final_norm_eps) == (eps, 1e-5)
    ours = found.model()
    assert ours.normalize_target == normalize
    assert_same_pretraining(ours, theirs)


@pytest.mark.parametrize("changed", [{}, {"decoder_intermediate_size": 100}])
def test_their_default_leaves_the_encoders_norm_out(
    changed: dict[str, int], tmp_path: Path
) -> None:
    theirs = their_model("VideoMAEForPreTraining", use_mean_pooling=True, **changed)
    assert theirs.videomae.layernorm is None
    found = from_hugging_face(saved(theirs, tmp_path / "hf"))
    assert not found.config.encoder_norm
    assert_same_pretraining(found.model(), theirs)
    convert(tmp_path / "hf", tmp_path / "a.safetensors", ConversionOptions("ours"))
    model, config = load_model(tmp_path / "a.safetensors")
    assert config == found.config
    assert same(dict(model.state_dict()), dict(found.state))
    convert(tmp_path / "a.safetensors", tmp_path / "back", ConversionOptions("hugging-face"))
    again, told = transformers.VideoMAEForPreTraining.from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not any(told.values()), told
    assert_same_pretraining(found.model(), again.eval())
    with pytest.raises(WeightsError, match=r"has no norm after the encoder.*official code can't"):
        convert(
            tmp_path / "hf", tmp_path / "b.pth", ConversionOptions("official", official_eps=True)
        )
    wanted = ConversionOptions("official", classes=3, official_eps=True)
    convert(tmp_path / "hf", tmp_path / "c.pth", wanted)  # a classifier has no such norm
    assert read_weights(tmp_path / "c.pth", TOLD_CLASSIFIER).config.encoder_norm


@pytest.mark.parametrize(
    "architecture", ["VideoMAEForPreTraining", "VideoMAEForVideoClassification", "VideoMAEModel"]
)
def test_the_card_says_what_is_there_and_its_code_runs(architecture: str, tmp_path: Path) -> None:
    weights = from_hugging_face(saved(their_model(architecture), tmp_path / "hf"))
    write_weights(weights, tmp_path / "out", "hugging-face")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "from `hf`, Hugging Face's layout" in card
    assert str(tmp_path) not in card
    parameters = sum(value.numel() for value in weights.state.values())
    assert f"| parameters | {parameters:,} |" in card
    assert f"| clip | {weights.config.frames} frames of " in card
    assert ("| classes |" in card) == (weights.kind == "classifier")
    code = card.partition("```python\n")[2].partition("```")[0]
    side = weights.config.image_size
    names = {"clip": [np.zeros((side, side, 3), dtype=np.uint8)] * weights.config.frames}
    exec(code.replace("FOLDER", str(tmp_path / "out")), names)
    results = {"loss", "logits", "last_hidden_state"} & names.keys()
    assert len(results) == 1
    assert torch.isfinite(names[results.pop()]).all()


def test_the_card_says_the_licence_that_is_given(tmp_path: Path) -> None:
    weights = from_hugging_face(saved(their_model("VideoMAEModel"), tmp_path / "hf"))
    write_weights(weights, tmp_path / "out", "hugging-face", licence="cc-by-nc-4.0")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert card.partition("---\n")[2].startswith(
        "library_name: transformers\nlicense: cc-by-nc-4.0\n"
    )
    assert "Licence of the weights: cc-by-nc-4.0." in card
    assert "fill it in" not in card
    with pytest.raises(WeightsError, match="the Hub's names are like"):
        write_weights(weights, tmp_path / "other", "hugging-face", licence="CC: free\nfor all")
    with pytest.raises(WeightsError, match="no model card"):
        write_weights(weights, tmp_path / "b.safetensors", "ours", licence="mit")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
def test_their_processor_makes_the_clips_that_the_model_is_for(
    size: tuple[int, int], tmp_path: Path
) -> None:
    """What AutoImageProcessor finds beside the weights gives what ours computes with."""
    side = size[0] if size[0] == size[1] else size
    weights = read_weights(_official(tmp_path, image_size=side), replace(TOLD, image_size=side))
    write_weights(weights, tmp_path / "hf", "hugging-face")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "hf")
    theirs = transformers.AutoModelForPreTraining.from_pretrained(tmp_path / "hf").eval()
    theirs.decoder.norm.eps = 1e-6
    frames = torch.randint(0, 256, (1, 4, *size, 3), dtype=torch.uint8)
    images = processor(list(frames[0].numpy()), return_tensors="pt")["pixel_values"]
    masks = Masks.sample(1, weights.config.grid, MaskSpec(encoder_ratio=0.5, decoder="none"))
    with torch.no_grad():
        truth = theirs(images, masks.to_bool()[0]).loss
        assert float(weights.model()(frames, masks).loss) == pytest.approx(float(truth), rel=1e-5)
    larger = [np.zeros((64, 80, 3), dtype=np.uint8)] * 4
    assert processor(larger, return_tensors="pt")["pixel_values"].shape == (1, 4, 3, *size)


def _official(folder: Path, **changed: Any) -> Path:
    save_file(pretraining(**changed), folder / "official.safetensors")
    return folder / "official.safetensors"


@pytest.mark.parametrize("eps", [1e-12, 1e-3])
def test_their_classifier_becomes_ours(eps: float, tmp_path: Path) -> None:
    theirs = their_model("VideoMAEForVideoClassification", num_labels=7, layer_norm_eps=eps)
    theirs.config.id2label = {i: f"class {i}" for i in range(7)}
    found = from_hugging_face(saved(theirs, tmp_path / "hf"))
    assert found.labels == tuple(f"class {i}" for i in range(7))
    frames, images = clips()
    with torch.no_grad():
        torch.testing.assert_close(found.model()(frames), theirs(images).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("eps", [{}, {"norm_eps": 1e-4, "final_norm_eps": 1e-5}])
def test_our_pretraining_becomes_theirs(eps: dict[str, float], tmp_path: Path) -> None:
    """Loaded by the real from_pretrained; where eps can't be said, it is set and was reported."""
    save_file(pretraining(), tmp_path / "official.safetensors")
    weights = read_weights(tmp_path / "official.safetensors", TOLD)
    config = MAEConfig(**{**weights.config.to_dict(), **eps})
    weights = weights.with_changes(config=config)
    _, changes = write_weights(weights, tmp_path / "hf", "hugging-face")
    theirs, told = transformers.VideoMAEForPreTraining.from_pretrained(
        tmp_path / "hf", output_loading_info=True
    )
    assert not any(told.values()), told
    assert_nothing_is_zero(theirs)
    assert theirs.decoder.norm.eps == 1e-5
    differing = [change.reason for change in changes if change.what == "differs"]
    if not eps:
        assert len(differing) == 1
        assert "decoder.norm's epsilon is 1e-06 here and 1e-05" in differing[0]
        theirs.decoder.norm.eps = 1e-6
    else:
        assert not differing
    assert_same_pretraining(weights.model(), theirs)


def assert_nothing_is_zero(model: torch.nn.Module) -> None:
    for name, parameter in model.named_parameters():
        assert float(parameter.detach().abs().min()) > 0, name


@pytest.mark.parametrize("spelling", ["q_bias", "query.bias"])
def test_our_classifier_becomes_theirs(spelling: Any, tmp_path: Path) -> None:
    save_file(classifier(), tmp_path / "official.safetensors")
    weights = read_weights(tmp_path / "official.safetensors", TOLD_CLASSIFIER)
    weights = weights.with_changes(labels=tuple("abcdefg"))
    write_weights(weights, tmp_path / "hf", "hugging-face", biases=spelling)
    written = load_file(tmp_path / "hf" / "model.safetensors")
    assert sum(key.endswith(f"attention.attention.{spelling}") for key in written) == 2
    theirs, told = transformers.VideoMAEForVideoClassification.from_pretrained(
        tmp_path / "hf", output_loading_info=True
    )
    assert not any(told.values()), told
    assert_nothing_is_zero(theirs)
    assert theirs.config.id2label == dict(enumerate("abcdefg"))
    assert theirs.config.layer_norm_eps == 1e-6
    theirs.fc_norm.eps = 1e-6
    frames, images = clips()
    with torch.no_grad():
        ours = weights.model()(frames)
        torch.testing.assert_close(ours, theirs(images).logits, rtol=0, atol=1e-5)


def test_a_bare_model_is_an_encoder(tmp_path: Path) -> None:
    for pooled in (True, False):
        folder = saved(
            their_model("VideoMAEModel", use_mean_pooling=pooled), tmp_path / str(pooled)
        )
        found = from_hugging_face(folder)
        assert found.kind == "encoder"
        assert ("encoder.norm.weight" in found.state) != pooled
        with pytest.raises(WeightsError, match="without a decoder"):
            found.model()
        write_weights(found, tmp_path / f"back-{pooled}", "hugging-face")
        theirs, told = transformers.VideoMAEModel.from_pretrained(
            tmp_path / f"back-{pooled}", output_loading_info=True
        )
        assert not any(told.values()), told
        assert same(from_hugging_face(saved(theirs, tmp_path / f"b-{pooled}")).state, found.state)


def test_both_spellings_of_the_biases_are_read() -> None:
    state = pretraining()
    for biases in ("query.bias", "q_bias"):
        theirs = to_hugging_face_keys(state, biases=biases)
        assert len(theirs) == len(state) + 2 * 3  # qkv of three blocks in three
        assert same(from_hugging_face_keys(theirs), state)
    both = theirs | to_hugging_face_keys(state, biases="query.bias")
    with pytest.raises(WeightsError, match=r"two entries become .*q_bias"):
        from_hugging_face_keys(both)


def test_shards_and_old_files_are_read(tmp_path: Path) -> None:
    theirs = their_model("VideoMAEForPreTraining")
    whole = from_hugging_face(saved(theirs, tmp_path / "whole")).state
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="60KB")
    index = tmp_path / "shards" / "model.safetensors.index.json"
    assert len(set(json.loads(index.read_text())["weight_map"].values())) > 1
    assert same(from_hugging_face(tmp_path / "shards").state, whole)
    state = load_file(tmp_path / "whole" / "model.safetensors")
    (tmp_path / "whole" / "model.safetensors").unlink()
    torch.save(state, tmp_path / "whole" / "pytorch_model.bin")
    assert same(from_hugging_face(tmp_path / "whole").state, whole)
    assert same(read_weights(tmp_path / "whole" / "pytorch_model.bin").state, whole)


def test_a_file_that_is_named_is_the_one_that_is_read(tmp_path: Path) -> None:
    """Though the folder has weights under the usual name too."""
    folder = saved(their_model("VideoMAEForPreTraining"), tmp_path / "hf")
    state = load_file(folder / "model.safetensors")
    other = {f"model.{key}": value + 1 for key, value in state.items()}
    torch.save({"state_dict": other}, folder / "epoch-3.ckpt")
    found = read_weights(folder / "epoch-3.ckpt")
    assert torch.equal(found.state["mask_token"], state["mask_token"] + 1)
    assert torch.equal(read_weights(folder).state["mask_token"], state["mask_token"])
    their_model("VideoMAEForPreTraining").save_pretrained(tmp_path / "s", max_shard_size="60KB")
    shard = next((tmp_path / "s").glob("*-of-*.safetensors"))
    assert same(dict(read_weights(shard).state), dict(from_hugging_face(tmp_path / "s").state))


def test_incomplete_shards_are_errors(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    their_model("VideoMAEForPreTraining").save_pretrained(folder, max_shard_size="60KB")
    files = sorted(folder.glob("model-*"))
    second = max(files, key=lambda file: len(load_file(file)))
    first = next(file for file in files if file != second)
    state = load_file(second)
    lost = sorted(state)[0]
    save_file({key: value for key, value in state.items() if key != lost}, second)
    with pytest.raises(WeightsError, match=f"shards and index don't agree on {lost}"):
        from_hugging_face(folder)
    first.unlink()
    with pytest.raises(WeightsError, match=f"{first.name}: no such weights file"):
        from_hugging_face(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace(first.name, f"../{first.name}"))
    with pytest.raises(WeightsError, match="is not a file beside it"):
        from_hugging_face(folder)
    for text in ("{}", "[]", '{"weight_map": {"a": 1}}', '{"weight_map": []}', "[" * 100_000, "{"):
        index.write_text(text)
        with pytest.raises(WeightsError, match=r"index\.json: (can't be read|is no JSON)"):
            from_hugging_face(folder)


def test_position_tables_must_be_the_sinusoid(tmp_path: Path) -> None:
    folder = saved(their_model("VideoMAEForPreTraining"), tmp_path / "hf")
    file = folder / "model.safetensors"
    tables = {
        "videomae.embeddings.position_embeddings": sinusoid_table(GRID.tokens, 32)[None],
        "position_embeddings": sinusoid_table(GRID.tokens, 16)[None].half(),
    }
    save_file(load_file(file) | tables, file)
    found = from_hugging_face(folder)
    assert [set(change.state) for change in found.changes if change.state] == [set(tables)]
    tables["position_embeddings"][0, 3, 0] += 0.1
    save_file(load_file(file) | tables, file)
    with pytest.raises(WeightsError, match="position_embeddings is not the fixed sinusoid"):
        from_hugging_face(folder)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"num_channels": 4}, "num_channels 4"),
        ({"qv_bias": False}, "qv_bias false"),
        ({"use_mean_pooling": True}, r"unused: encoder\.norm\.bias, encoder\.norm\.weight"),
        ({"patch_size": [16, 8]}, "square patches"),
        ({"decoder_intermediate_size": 100}, r"other shape: decoder\.blocks\.0\.mlp\.fc1"),
        ({"hidden_size": 64}, r"other shape: encoder\.patch_embed\.proj\.weight"),
        ({"hidden_size": 0}, "describes no model"),
        ({"hidden_size": 10**400}, "describes no model|can't be read|other shape"),
        ({"num_hidden_layers": 10**9}, r"missing: encoder\.blocks\.2\."),
        ({"decoder_hidden_size": 10**9}, "other shape: mask_token"),
        ({"image_size": "224"}, "image_size of config.json holds a size that is none"),
        ({"image_size": []}, "image_size of config.json holds a size that is none"),
        ({"patch_size": [16, True]}, "a size that is none"),
        ({"hidden_act": ["gelu"]}, "no value for it"),
        ({"use_mean_pooling": None}, "no value for it"),
        ({"layer_norm_eps": float("nan")}, "norm_eps must be positive"),
        ({"num_hidden_layers": 3}, r"missing: encoder\.blocks\.2\."),
        ({"num_attention_heads": 5}, "32 is not a multiple of heads 5"),
        ({"num_frames": "many"}, "a size that is none"),
        ({"model_type": "vit_mae"}, "not the config of a VideoMAE"),
    ],
)
def test_settings_without_counterpart_are_errors(changed, told, tmp_path: Path) -> None:
    folder = saved(their_model("VideoMAEForPreTraining"), tmp_path / "hf")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, **changed}))
    with pytest.raises(WeightsError, match=told):
        from_hugging_face(folder)


@pytest.mark.parametrize(
    ("gone", "new", "told"),
    [
        ("encoder.layer.1.attention.attention.key.weight", None, "key of encoder.blocks.1.attn"),
        ("encoder.layer.1.attention.attention.q_bias", None, "missing: encoder.blocks.1.attn.q_b"),
        ("mask_token", None, "missing: mask_token"),
        (None, "videomae.pooler.weight", "no counterpart in the official layout: videomae.pooler"),
    ],
)
def test_nothing_missing_and_nothing_unused(gone, new, told, tmp_path: Path) -> None:
    folder = saved(their_model("VideoMAEForPreTraining"), tmp_path / "hf")
    state = load_file(folder / "model.safetensors")
    if gone:
        del state[next(key for key in state if key.endswith(gone))]
    if new:
        state[new] = torch.ones(2)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=told):
        from_hugging_face(folder)


def test_biases_of_keys_change_nothing(tmp_path: Path) -> None:
    """As transformers 5.5.1 to 5.17 have them; here they are put into the real model."""
    theirs = their_model("VideoMAEForVideoClassification", num_labels=7)
    for layer in theirs.videomae.encoder.layer:
        layer.attention.attention.key.bias = torch.nn.Parameter(torch.randn(32))
    found = from_hugging_face(saved(theirs, tmp_path / "hf"))
    (dropped,) = [change for change in found.changes if change.what == "left out"]
    assert len(dropped.state) == 2
    frames, images = clips()
    with torch.no_grad():
        torch.testing.assert_close(found.model()(frames), theirs(images).logits, rtol=0, atol=1e-5)
    convert(tmp_path / "hf", tmp_path / "ours.safetensors", ConversionOptions("ours"))


def test_dropout_is_told(tmp_path: Path) -> None:
    theirs = their_model("VideoMAEForPreTraining", hidden_dropout_prob=0.1)
    found = from_hugging_face(saved(theirs, tmp_path / "hf"))
    assert any("no hidden_dropout_prob" in change.reason for change in found.changes)


@pytest.mark.parametrize("extra", [{"learned_positions": True}, {"layer_scale": 0.1}])
def test_what_theirs_does_not_have_is_an_error(extra, tmp_path: Path) -> None:
    save_file(pretraining(**extra), tmp_path / "official.safetensors")
    weights = read_weights(tmp_path / "official.safetensors", TOLD)
    with pytest.raises(WeightsError, match="Hugging Face's VideoMAE has no"):
        write_weights(weights, tmp_path / "hf", "hugging-face")
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize("name", ["pretrain_tiny_tube", "pretrain_tiny_patch14_dual"])
def test_golden_loss_through_their_layout_and_back(golden, name: str, tmp_path: Path) -> None:
    data = golden(name)
    config = MAEConfig(**data.shape)
    save_file(data.under("param/"), tmp_path / "official.safetensors")
    told = type(TOLD)(config.heads, config.decoder_heads, config.frames, config.image_size)
    weights = read_weights(tmp_path / "official.safetensors", told)
    write_weights(weights, tmp_path / "hf", "hugging-face")
    back = with_official_eps(from_hugging_face(tmp_path / "hf"))
    assert same(back.state, data.under("param/"))
    masks = Masks.from_bool(data["encoder_mask"], data.get("decoder_mask"), grid=config.grid)
    loss = back.model()(data["frames"], masks).loss
    assert float(loss) == pytest.approx(float(data["loss"]), rel=1e-5)
