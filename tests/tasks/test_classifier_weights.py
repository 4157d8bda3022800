"""Weights that fine-tuning begins from: heads kept, picked by names, or new, and said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.labelled import TINY
from videomae_fast import MAEConfig, MaskedAutoencoder, VideoClassifier
from videomae_fast.data.labels.kinetics import kinetics_names, kinetics_rows
from videomae_fast.errors import WeightsError
from videomae_fast.interop import ModelWeights, write_weights
from videomae_fast.interop.weights.model_weights import origin_of
from videomae_fast.tasks.classifier_weights import begin_classifier_from
from videomae_fast.tasks.labelled import Classes

CONFIG = MAEConfig(
    image_size=TINY["model.image_size"], frames=TINY["model.frames"], width=TINY["model.width"],
    depth=1, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=1,
)  # fmt: skip


def _classifier(path: Path, names: tuple[str, ...] | None, count: int) -> VideoClassifier:
    model = VideoClassifier(CONFIG, count, init_scale=1.0)
    torch.nn.init.normal_(model.fc_norm.weight)
    torch.nn.init.normal_(model.head.bias)
    state = model.state_dict()
    origin = origin_of("test", "ours", state)
    write_weights(ModelWeights("classifier", CONFIG, state, origin, labels=names), path, "ours")
    return model


def _begun(
    path: Path, classes: Classes, head_index: str | None = None
) -> tuple[VideoClassifier, str]:
    own = replace(CONFIG, decoder_width=32, decoder_depth=3, encoder_norm=False)  # not looked at
    model, said = VideoClassifier(own, classes.count), list[str]()
    record = begin_classifier_from(
        model, path, classes, said.append, init_scale=0.001, seed=3, head_index=head_index
    )
    assert record["sha256"]
    assert f"head: {record['head']}" in said
    return model, "\n".join(said)


def test_pre_trained_weights_get_a_new_head_and_norm(tmp_path: Path) -> None:
    path = tmp_path / "pretrained.safetensors"
    trained = MaskedAutoencoder(CONFIG)
    state = trained.state_dict()
    origin = origin_of("test", "ours", state)
    options = {"normalize_target": True, "ignore_flat_cubes": False}
    write_weights(
        ModelWeights("pre-training", CONFIG, state, origin, options=options), path, "ours"
    )
    model, said = _begun(path, Classes(4, None))
    for name, value in model.state_dict().items():
        if not name.startswith(("head.", "fc_norm.")):
            assert torch.equal(value, state[f"encoder.{name}"]), name
    assert torch.equal(model.fc_norm.weight, torch.ones(CONFIG.width))
    for told in (
        "pre-training weights have none, so it is new, as fc_norm is",
        "made new: for 4",
        "left out: only pre-training has a decoder",
        "left out: the classifier has its",
    ):
        assert told in said


def test_the_same_classes_keep_their_head(tmp_path: Path) -> None:
    path, names = tmp_path / "tuned.safetensors", ("a", "b", "c")
    before = _classifier(path, names, 3)
    for classes, told in (
        (Classes(3, names), "kept: the same 3 classes by name"),
        (Classes(3, None), "names are not known on both sides and were not compared"),
    ):
        model, said = _begun(path, classes)
        assert told in said
        for name, value in model.state_dict().items():
            assert torch.equal(value, before.state_dict()[name]), name


def test_other_epsilons_are_told(tmp_path: Path) -> None:
    model = _classifier(tmp_path / "own.safetensors", None, 2)
    path, state = tmp_path / "other.safetensors", model.state_dict()
    other = replace(CONFIG, norm_eps=1e-12)  # Hugging Face's default
    origin = origin_of("test", "ours", state)
    write_weights(ModelWeights("classifier", other, state, origin), path, "ours")
    told = "differs: norm_eps was 1e-12 there and is 1e-06 in this run"
    assert told in _begun(path, Classes(2, None))[1]
    assert "differs" not in _begun(tmp_path / "own.safetensors", Classes(2, None))[1]


def test_other_classes_are_picked_by_name_or_new(tmp_path: Path) -> None:
    path = tmp_path / "tuned.safetensors"
    before = _classifier(path, ("a", "b", "c"), 3)
    model, said = _begun(path, Classes(2, ("c", "a")))
    assert "rows of 2 of its 3 classes, by name" in said
    assert torch.equal(model.head.weight, before.head.weight[[2, 0]])
    model, said = _begun(path, Classes(3, ("a", "b", "d")))
    assert "new: 1 of 3 classes are not among its 3, as 'd'" in said
    assert float(model.head.weight.detach().abs().max()) < 0.001
    assert torch.equal(model.fc_norm.weight, before.fc_norm.weight)
    _, said = _begun(path, Classes(5, None))
    assert "was for 3 classes and is new for 5" in said


@pytest.mark.parametrize("count", [400, 600, 700])
def test_a_kinetics_710_head_gives_the_rows_of_a_smaller_set(count: int, tmp_path: Path) -> None:
    path = tmp_path / "k710.safetensors"
    before = _classifier(path, None, 710)
    model, said = _begun(path, Classes(count, tuple(kinetics_names(count))))
    assert f"rows of Kinetics-{count} out of Kinetics-710, by name" in said
    assert torch.equal(model.head.weight, before.head.weight[kinetics_rows(count)])
    with pytest.raises(WeightsError, match=f"--classes kinetics-{count}"):
        _begun(path, Classes(count, None))
    _, said = _begun(path, Classes(count, tuple(f"own {i}" for i in range(count))))
    assert f"new: {count} of {count} classes are not among its 710" in said


def test_rows_by_an_index_file_are_checked_and_their_names_compared(tmp_path: Path) -> None:
    path, index = tmp_path / "tuned.safetensors", tmp_path / "rows.json"
    before = _classifier(path, ("a", "b", "c"), 3)
    index.write_text("[2, 0]")
    for names, told in (
        (("c", "a"), "2 rows of its 3, by {}; all names are the same"),
        (("sea", "a"), "1 have other names: 'c' for 'sea'"),
        (None, "names are not known on both sides"),
    ):
        model, said = _begun(path, Classes(2, names), str(index))
        assert told.format(index) in said
        assert torch.equal(model.head.weight, before.head.weight[[2, 0]])
    for text, names, told in (
        ("[2, 0]", ("a", "c"), "not one of its 2 rows has the name of the run's class, as 'c' for"),
        ("[2, 3]", ("a", "c"), "the head has rows 0 to 2, not 3"),
        ("[2]", ("a", "c"), "has 1 rows, and the run has 2 classes"),
    ):
        index.write_text(text)
        with pytest.raises(WeightsError, match=told):
            _begun(path, Classes(2, names), str(index))


def test_an_unnamed_kinetics_710_head_knows_some_of_its_classes_by_name(tmp_path: Path) -> None:
    path = tmp_path / "k710.safetensors"
    before, names = _classifier(path, None, 710), kinetics_names(710)
    model, said = _begun(path, Classes(2, (names[500], names[3])))
    assert "rows of 2 of its 710 classes, by name" in said
    assert torch.equal(model.head.weight, before.head.weight[[500, 3]])


def test_positions_of_another_grid_are_an_error_with_its_remedy(tmp_path: Path) -> None:
    path = tmp_path / "tuned.safetensors"
    _classifier(path, None, 3)
    other = VideoClassifier(MAEConfig(image_size=48, frames=4, width=48, depth=1, heads=2), 3)
    with pytest.raises(WeightsError, match="--trained-image-size 32"):
        begin_classifier_from(other, path, Classes(3, None), print, init_scale=1.0, seed=0)
