"""Conversions between layouts: nothing is lost, everything is accounted for, files are whole."""

from __future__ import annotations

import argparse
import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.support.random_weights import TINY, TOLD, TOLD_CLASSIFIER, classifier, pretraining, same
from videomae_fast import MAEConfig, MaskedAutoencoder, VideoClassifier
from videomae_fast.errors import WeightsError
from videomae_fast.interop import (
    ConversionOptions,
    ModelWeights,
    SourceHints,
    convert,
    read_weights,
    to_classifier,
    write_weights,
)
from videomae_fast.interop.weights.layouts.official import kind_of
from videomae_fast.interop.weights.model_weights import origin_of
from videomae_fast.interop.weights.shapes import infer_config, mlp_ratio, mlp_ratios
from videomae_fast.tasks.trained import load_model
from videomae_fast.training.errors import CheckpointError

OFFICIAL, OURS, THEIRS = (
    ConversionOptions("official"),
    ConversionOptions("ours"),
    ConversionOptions("hugging-face"),
)


def official(path: Path, state: dict[str, torch.Tensor]) -> Path:
    """As the official code leaves its checkpoints: nested, prefixed, with its command line."""
    prefixed = {f"_orig_mod.{key}": value for key, value in state.items()}
    args = argparse.Namespace(model="pretrain_videomae_tiny")
    torch.save({"model": prefixed, "optimizer": {"state": {}}, "epoch": 7, "args": args}, path)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["pre-training", "classifier"])
def test_round_trip_through_every_layout(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    state = pretraining() if kind == "pre-training" else classifier()
    state = {key: value.to(dtype) for key, value in state.items()}
    told = TOLD if kind == "pre-training" else TOLD_CLASSIFIER
    source = official(tmp_path / "a.pth", state)
    convert(source, tmp_path / "b.safetensors", OURS, told)
    convert(tmp_path / "b.safetensors", tmp_path / "hf", THEIRS)
    convert(
        tmp_path / "hf", tmp_path / "hf2", ConversionOptions("hugging-face", biases="query.bias")
    )
    convert(
        tmp_path / "hf2", tmp_path / "c.safetensors", ConversionOptions("ours", official_eps=True)
    )
    convert(tmp_path / "c.safetensors", tmp_path / "d.pth", OFFICIAL)
    convert(tmp_path / "d.pth", tmp_path / "e.safetensors", OFFICIAL, told)
    assert same(torch.load(tmp_path / "d.pth", weights_only=True)["model"], state)
    for name in ("b", "c", "e"):
        assert same(load_file(tmp_path / f"{name}.safetensors"), state), name
    first, last = (read_weights(tmp_path / f"{name}.safetensors") for name in "bc")
    assert first.config == MAEConfig(**TINY) or kind == "classifier"
    assert (first.kind, first.options, first.labels) == (last.kind, last.options, last.labels)
    assert first.config == last.config
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".partial")]


def test_epsilons_and_options_are_carried_or_asked_about(tmp_path: Path) -> None:
    config = MAEConfig(**TINY, norm_eps=1e-12, final_norm_eps=1e-5)
    weights = read_weights(official(tmp_path / "a.pth", pretraining()), TOLD)
    weights = weights.with_changes(config=config, options={"normalize_target": False})
    write_weights(weights, tmp_path / "ours.safetensors", "ours")
    convert(tmp_path / "ours.safetensors", tmp_path / "hf", THEIRS)
    back = read_weights(tmp_path / "hf")
    assert (back.config, back.options) == (config, {"normalize_target": False})
    with pytest.raises(WeightsError, match=r"1e-12 in blocks and 1e-05 .* --official-eps"):
        convert(tmp_path / "hf", tmp_path / "b.pth", OFFICIAL)
    assert not (tmp_path / "b.pth").exists()
    account = convert(
        tmp_path / "hf", tmp_path / "b.pth", ConversionOptions("official", official_eps=True)
    )
    told = [f"{change.what} {change.reason}" for change in account.changes]
    assert any("differs LayerNorm's epsilon was 1e-12" in line for line in told), told
    asked = next(line for line in told if "to be said again" in line)
    for word in ("heads 2", "decoder_heads 1", "frames 4", "image_size 32"):
        assert word in asked
    assert any("normalize_target=False" in line for line in told), told


@pytest.mark.parametrize("size", ["small", "base", "large", "huge", "giant"])
def test_official_sizes_are_read_off_the_shapes(size: Any) -> None:
    config = MAEConfig.from_size(size)
    with torch.device("meta"):
        models = MaskedAutoencoder(config), VideoClassifier(config, 710)
    for model, kind in zip(models, ("pre-training", "classifier"), strict=True):
        state = model.state_dict()
        assert kind_of(state, "x") == kind
        assert infer_config(state, kind, SourceHints(), "x") == config
    assert (
        infer_config(models[0].state_dict(), "pre-training", SourceHints(frames=32), "x").frames
        == 32
    )


def test_one_mlp_ratio_gives_all_hidden_widths() -> None:
    assert mlp_ratio([(10, 40), (100, 405)]) == 4.05
    assert mlp_ratio([(1408, 6144), (512, 2234)]) == 48 / 11
    assert 49 * (1 / 49) < 1  # rounded down: the quotient alone would give 0
    assert int(49 * (mlp_ratio([(49, 1)]) or 0)) == 1
    assert mlp_ratio([(10, 40), (100, 411)]) is None
    assert mlp_ratios((10, 40), (100, 411), "x") == {"mlp_ratio": 4.0, "decoder_mlp_ratio": 4.11}
    assert mlp_ratios((1408, 6144), (512, 2234), "x") == {"mlp_ratio": 48 / 11}


def test_a_decoder_with_an_mlp_ratio_of_its_own(tmp_path: Path) -> None:
    state = pretraining(decoder_mlp_ratio=2.5)
    source = official(tmp_path / "a.pth", state)
    read = read_weights(source, TOLD)
    assert (read.config.mlp_ratio, read.config.decoder_mlp_ratio) == (4.0, 2.5)
    convert(source, tmp_path / "b.safetensors", OURS, TOLD)
    convert(tmp_path / "b.safetensors", tmp_path / "hf", THEIRS)
    assert read_weights(tmp_path / "hf").config.decoder_hidden == 40
    convert(
        tmp_path / "hf", tmp_path / "c.safetensors", ConversionOptions("ours", official_eps=True)
    )
    assert read_weights(tmp_path / "c.safetensors").config == read.config
    with pytest.raises(WeightsError, match="has another MLP ratio in the decoder, which the offic"):
        convert(tmp_path / "b.safetensors", tmp_path / "d.pth", OFFICIAL)


def test_learned_positions_and_layer_scale_are_seen(tmp_path: Path) -> None:
    extra = {"learned_positions": True, "layer_scale": 0.1}
    for name, state, told in (
        ("pre", pretraining(**extra), TOLD),
        ("cls", classifier(**extra), TOLD_CLASSIFIER),
    ):
        source = official(tmp_path / f"{name}.pth", state)
        found = read_weights(source, told)
        assert found.config.learned_positions
        assert found.config.layer_scale
        assert same(dict(found.model().state_dict()), state)
        convert(source, tmp_path / f"{name}.safetensors", OURS, told)
        assert same(load_file(tmp_path / f"{name}.safetensors"), state)
        with pytest.raises(WeightsError, match=r"learned positions are for 8 tokens.*--frames"):
            read_weights(
                source, SourceHints(heads=2, decoder_heads=told.decoder_heads, image_size=32)
            )


def test_our_files_are_loaded_by_the_rest_of_the_package(tmp_path: Path) -> None:
    convert(official(tmp_path / "a.pth", pretraining()), tmp_path / "p.safetensors", OURS, TOLD)
    model, config = load_model(tmp_path / "p.safetensors")
    assert config == MAEConfig(**TINY)
    assert same(dict(model.state_dict()), pretraining())
    convert(
        tmp_path / "p.safetensors", tmp_path / "c.safetensors", ConversionOptions("ours", classes=3)
    )
    with pytest.raises(CheckpointError, match="holds a classifier"):
        load_model(tmp_path / "c.safetensors")
    save_file(load_file(tmp_path / "c.safetensors"), tmp_path / "o.safetensors")
    with pytest.raises(CheckpointError, match="does not say what shape"):
        load_model(tmp_path / "o.safetensors")
    with safe_open(tmp_path / "c.safetensors", "pt") as file:
        said = json.loads(file.metadata()["videomae_fast"])
    built = VideoClassifier(MAEConfig.from_dict(said["model"]), **said["options"])
    built.load_state_dict(load_file(tmp_path / "c.safetensors"))


def test_an_encoder_alone(tmp_path: Path) -> None:
    state = {k: v for k, v in pretraining().items() if k.startswith("encoder.")}
    source, told = official(tmp_path / "a.pth", state), TOLD_CLASSIFIER
    with pytest.raises(WeightsError, match=r"an encoder alone.*--classifier"):
        convert(source, tmp_path / "b.safetensors", OURS, told)
    convert(source, tmp_path / "hf", THEIRS, told)
    convert(tmp_path / "hf", tmp_path / "c.pth", ConversionOptions("official", official_eps=True))
    assert same(torch.load(tmp_path / "c.pth", weights_only=True)["model"], state)
    convert(source, tmp_path / "c.safetensors", ConversionOptions("ours", classes=5), told)
    whole = to_classifier(read_weights(official(tmp_path / "d.pth", pretraining()), TOLD), 5)
    assert same(load_file(tmp_path / "c.safetensors"), dict(whole.state))


def without(state: dict[str, torch.Tensor], key: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (lambda s: without(s, "encoder.blocks.1.attn.q_bias"), r"missing: .*blocks\.1\.attn\.q_b"),
        (lambda s: without(s, "encoder.norm.weight"), r"missing: encoder\.norm\.weight"),
        (lambda s: without(s, "encoder.blocks.0.mlp.fc1.weight"), r"missing: .*0\.mlp\.fc1"),
        (lambda s: s | {"encoder.blocks.0.attn.k_bias": torch.ones(3)}, r"unused: .*0\.attn\.k_b"),
        (lambda s: s | {"encoder.blocks.9.norm1.bias": torch.ones(32)}, r"missing: .*blocks\.2, o"),
        (lambda s: s | {"mask_token": torch.ones(1, 1, 3)}, r"other shape: mask_token \[1, 1, 3\]"),
        (lambda s: s | {"mask_token": torch.ones(1, 1, 16).int()}, "not floating-point: mask_to"),
        (
            lambda s: s | {"encoder.patch_embed.proj.weight": torch.ones(32, 3, 16, 16)},
            "not 5 dimensions",
        ),
        (
            lambda s: s | {"encoder.patch_embed.proj.weight": torch.ones(32, 3, 2, 16, 8)},
            r"not \[width, 3, tubelet, patch, patch\]",
        ),
        (
            lambda s: s | {f"encoder.blocks.{'9' * 5000}.norm1.bias": torch.ones(2)},
            "its tensors describe no model",
        ),
        (lambda s: {"fc.weight": torch.ones(2)}, "no VideoMAE weights.*among fc.weight"),
        (
            lambda s: without(classifier(), "fc_norm.weight") | {"norm.weight": torch.ones(32)},
            "takes the first token",
        ),
    ],
)
def test_broken_weights_are_errors_that_name_the_tensor(broken, told, tmp_path: Path) -> None:
    source = official(tmp_path / "a.pth", broken(pretraining()))
    with pytest.raises(WeightsError, match=told) as raised:
        convert(source, tmp_path / "b.safetensors", OURS, TOLD)
    assert str(source) in str(raised.value)
    assert list(tmp_path.iterdir()) == [source]


def test_heads_are_asked_for(tmp_path: Path) -> None:
    source = official(tmp_path / "a.pth", pretraining())
    with pytest.raises(WeightsError, match=r"32 is no official width .*; give --heads"):
        read_weights(source)
    with pytest.raises(WeightsError, match=r"16 is no official width .*; give --decoder-heads"):
        read_weights(source, SourceHints(heads=2))
    with pytest.raises(WeightsError, match="has no decoder; leave --decoder-heads out"):
        read_weights(official(tmp_path / "c.pth", classifier()), TOLD)
    convert(source, tmp_path / "b.safetensors", OURS, TOLD)
    assert read_weights(tmp_path / "b.safetensors", TOLD).config.heads == 2
    with pytest.raises(WeightsError, match="says heads 2, not 4; leave --heads out"):
        read_weights(tmp_path / "b.safetensors", SourceHints(heads=4))


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ("{", "no JSON"),
        ("[]", "no JSON object"),
        ("{}", "can't be read"),
        ("[" * 100_000, "nested too deeply"),
        ('{"model": {"wide": 3}, "options": {}}', "unknown model fields: wide"),
        ('{"model": [], "options": {}}', "can't be read"),
        ('{"model": {"width": "768"}, "options": {}}', "width is of type str, not int"),
        ('{"model": {"width": true}, "options": {}}', "width is of type bool, not int"),
        ('{"model": {"image_size": [32, 32.5]}, "options": {}}', "image_size is of type"),
        ('{"model": {"mlp_ratio": NaN}, "options": {}}', "mlp_ratio must be positive, got nan"),
        ('{"model": {"norm_eps": 1e999}, "options": {}}', "norm_eps must be positive, got inf"),
        ('{"model": {"depth": 1000000000}, "options": {}}', "the config says 1000000000 blocks"),
        ('{"model": {"width": 1200000000}, "options": {}}', "the config says 1200000000"),
        ('{"model": {"decoder_width": 1200000000}, "options": {}}', "the config says 1200000000"),
        (
            '{"model": {"frames": 2000000, "learned_positions": true}, "options": {}}',
            r"missing: encoder\.pos_embed",
        ),
        ('{"model": %s, "options": {"normalize_target": 1}}', "normalize_target is no bool"),
        ('{"model": %s, "options": {}, "labels": "abc"}', "labels are no list of names"),
        ('{"model": %s, "options": {}, "kind": ["classifier"]}', "says that it is"),
        ('{"kind": "segmenter", "model": {}, "options": {}}', "says that it is 'segmenter'"),
        ('{"model": {}, "options": {"magic": 1}}', "unknown model option .*magic"),
    ],
)
def test_our_files_with_broken_descriptions(metadata: str, told: str, tmp_path: Path) -> None:
    metadata = metadata.replace("%s", json.dumps(TINY))
    save_file(pretraining(), tmp_path / "a.safetensors", metadata={"videomae_fast": metadata})
    for read in (read_weights, load_model):
        with pytest.raises(WeightsError, match=rf"a\.safetensors: .*{told}"):
            read(tmp_path / "a.safetensors")


def test_options_that_no_model_has() -> None:
    state = pretraining()
    origin = origin_of("x", "ours", state)
    for options in ({"magic": 1}, {"drop_path": "much"}):
        with pytest.raises(WeightsError, match="x: no model has the sizes and options that it say"):
            ModelWeights("pre-training", MAEConfig(**TINY), state, origin, options=options)


def test_clips_that_no_table_of_positions_is_for(tmp_path: Path) -> None:
    """Weights don't depend on the clip, so a wrong size is found when the model is built."""
    said = {"model": {**TINY, "frames": 2**21, "image_size": 2**15}, "options": {}}
    file = tmp_path / "a.safetensors"
    save_file(pretraining(), file, metadata={"videomae_fast": json.dumps(said)})
    assert same(dict(read_weights(file).state), pretraining())
    with pytest.raises(WeightsError, match=r"a\.safetensors: says clips of 2097152 frames"):
        load_model(file)


def test_nothing_is_overwritten_and_names_fit_the_layout(tmp_path: Path) -> None:
    source = official(tmp_path / "a.pth", pretraining())
    before = source.read_bytes()
    for path, wanted in ((source, OFFICIAL), (tmp_path, THEIRS)):
        with pytest.raises(WeightsError, match="is there already, and nothing is overwritten"):
            convert(source, path, wanted, TOLD)
    with pytest.raises(WeightsError, match=r"ends in \.safetensors or \.pth"):
        convert(source, tmp_path / "b.bin", OFFICIAL, TOLD)
    with pytest.raises(WeightsError, match=r"ends in \.safetensors"):
        convert(source, tmp_path / "b.pth", OURS, TOLD)
    with pytest.raises(WeightsError, match="no such folder"):
        convert(source, tmp_path / "new" / "b.pth", OFFICIAL, TOLD)
    assert source.read_bytes() == before
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("name", "wanted"), [("b.pth", OFFICIAL), ("b.safetensors", OURS), ("hf", THEIRS)]
)
def test_a_full_disk_leaves_nothing(name: str, wanted: ConversionOptions, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: writing really fails."""
    source = official(tmp_path / "a.pth", pretraining())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(WeightsError, match=rf"can't write .*{name}.* MB are free there"):
            convert(source, tmp_path / name, wanted, TOLD)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [source]


def test_what_was_written_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from videomae_fast.interop.weights import write

    def careless(state: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        save_file({k: torch.zeros_like(v) if "q_bias" in k else v for k, v in state.items()}, path)

    monkeypatch.setattr(write, "save_file", careless)
    source = official(tmp_path / "a.pth", pretraining())
    with pytest.raises(WeightsError, match=r"not as written when read back: .*q_bias"):
        convert(source, tmp_path / "b.safetensors", OURS, TOLD)
    assert list(tmp_path.iterdir()) == [source]


def test_a_tensor_that_gets_lost_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    module = importlib.import_module("videomae_fast.interop.weights.convert")

    def careless(weights: ModelWeights, classes: int) -> ModelWeights:
        made = to_classifier(weights, classes)
        return ModelWeights(made.kind, made.config, made.state, made.origin)

    monkeypatch.setattr(module, "to_classifier", careless)
    source = official(tmp_path / "a.pth", pretraining())
    with pytest.raises(WeightsError, match=r"lost on the way: encoder norm \(64 values expected"):
        convert(source, tmp_path / "b.pth", ConversionOptions("official", classes=4), TOLD)


def test_views_and_shared_memory_are_written_apart(tmp_path: Path) -> None:
    state = pretraining()
    state["encoder.blocks.0.norm1.weight"] = state["encoder.blocks.0.norm1.bias"]
    qkv = state["encoder.blocks.0.attn.qkv.weight"]
    state["encoder.blocks.0.attn.qkv.weight"] = qkv.T.contiguous().T
    source = official(tmp_path / "a.pth", state)
    convert(source, tmp_path / "b.safetensors", OURS, TOLD)
    convert(source, tmp_path / "c.pth", OFFICIAL, TOLD)
    assert same(load_file(tmp_path / "b.safetensors"), state)
    assert same(torch.load(tmp_path / "c.pth", weights_only=True)["model"], state)


def test_the_account_has_every_part_and_every_change(tmp_path: Path) -> None:
    source = official(tmp_path / "a.pth", pretraining())
    account = convert(source, tmp_path / "hf", ConversionOptions("hugging-face", classes=3), TOLD)
    text = "\n".join(account.lines())
    blocks = 13 * 2, 17 * 2 - 2 * 2  # qkv in three, per block
    values = sum(v.numel() for k, v in pretraining().items() if k.startswith("encoder.blocks."))
    assert f"encoder blocks{f'{blocks[0]} ({values:,})':>28}" in text
    assert f"{blocks[1]} ({values:,})" in text
    assert "left out  encoder norm: the classifier has its own norm" in text
    assert "left out  encoder to decoder, mask token, decoder blocks, decoder norm, d" in text
    assert "made new  classifier norm, classifier head: for 3 classes" in text
    assert "differs   fc_norm's epsilon is 1e-06 here and 1e-05" in text
