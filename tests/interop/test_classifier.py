"""Pre-training to classifier, and heads for fewer classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support.random_weights import TINY, TOLD, TOLD_CLASSIFIER, classifier, pretraining
from videomae_fast import MAEConfig, MaskedAutoencoder, VideoClassifier
from videomae_fast.errors import WeightsError
from videomae_fast.interop import (
    ModelWeights,
    read_rows,
    read_weights,
    select_classes,
    to_classifier,
)
from videomae_fast.interop.weights.heads import with_labels
from videomae_fast.interop.weights.model_weights import origin_of


@pytest.fixture
def pretrained(tmp_path: Path) -> ModelWeights:
    save_file(pretraining(), tmp_path / "pre.safetensors")
    return read_weights(tmp_path / "pre.safetensors", TOLD)


@pytest.fixture
def seven(tmp_path: Path) -> ModelWeights:
    save_file(classifier(7), tmp_path / "cls.safetensors")
    return read_weights(tmp_path / "cls.safetensors", TOLD_CLASSIFIER).with_changes(
        labels=tuple("abcdefg")
    )


def test_the_encoder_becomes_a_classifier(pretrained: ModelWeights) -> None:
    made = to_classifier(pretrained, 5)
    model = made.model()
    assert isinstance(model, VideoClassifier)
    own = dict(model.state_dict())
    assert own["head.weight"].shape == (5, 32)
    for key, value in pretraining().items():
        if key.startswith("encoder.") and not key.startswith("encoder.norm."):
            assert torch.equal(own.pop(key.removeprefix("encoder.")), value), key
    assert set(own) == {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
    assert torch.equal(own["fc_norm.weight"], torch.ones(32))
    assert not own["head.bias"].any()
    assert 0 < float(own["head.weight"].std()) < 1e-4  # 0.02 · 0.001
    dropped = {k for c in made.changes if c.what == "left out" for k in c.state}
    assert dropped == {k for k in pretraining() if not k.startswith("encoder.")} | {
        "encoder.norm.weight",
        "encoder.norm.bias",
    }


OFFICIAL = Path(__file__).parents[3] / "shared" / "golden" / "downstream_checkpoint_keys.json"


@pytest.mark.skipif(not OFFICIAL.is_file(), reason="the official code's lists of keys aren't there")
def test_what_is_taken_and_left_is_what_the_official_fine_tuning_does() -> None:
    """ViT-B's keys: which it loads under which name, leaves unused, and begins anew."""
    theirs = json.loads(OFFICIAL.read_text())
    state = pretraining(depth=12, decoder_depth=4)
    assert state.keys() == theirs["rename"].keys()
    config = MAEConfig(**{**TINY, "depth": 12, "decoder_depth": 4})
    weights = ModelWeights("pre-training", config, state, origin_of("x", "official", state))
    made = to_classifier(weights, 5)
    told = {c.what: c.state.keys() for c in made.changes if c.what == "made new"}
    assert told["made new"] == set(theirs["missing"])
    assert made.state.keys() - told["made new"] == set(theirs["used"])
    left = {key for c in made.changes if c.what == "left out" for key in c.state}
    assert {theirs["rename"][key] for key in left} == set(theirs["unused"])
    for key in set(state) - left:
        assert torch.equal(made.state[theirs["rename"][key]], state[key]), key


def test_the_encoder_computes_what_it_did(pretrained: ModelWeights) -> None:
    """Features before the pooling, with everything visible."""
    frames = torch.randint(0, 256, (1, 4, 32, 32, 3), dtype=torch.uint8)
    whole, cut = pretrained.model(), to_classifier(pretrained, 5).model()
    assert isinstance(whole, MaskedAutoencoder)
    assert isinstance(cut, VideoClassifier)
    every = torch.arange(8, dtype=torch.int32)[None]
    with torch.no_grad():
        a, last_a = whole.encoder.blocks(*whole.encoder.embed(frames, every, whole.encoder.grid))
        b, last_b = cut.blocks(*cut.embed(frames, every, cut.grid))
        assert torch.equal(a, b)
        assert torch.equal(last_a.delta, last_b.delta)


def test_a_new_head_is_a_function_of_the_seed(pretrained: ModelWeights) -> None:
    heads = [to_classifier(pretrained, 5, seed=seed).state["head.weight"] for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    with pytest.raises(WeightsError, match="needs 1 class or more, not 0"):
        to_classifier(pretrained, 0)


def test_a_classifier_keeps_its_norm_and_gets_another_head(seven: ModelWeights) -> None:
    made = to_classifier(seven, 3)
    assert torch.equal(made.state["fc_norm.weight"], seven.state["fc_norm.weight"])
    assert made.state["head.weight"].shape == (3, 32)
    assert made.labels is None
    dropped = {k for c in made.changes if c.what == "left out" for k in c.state}
    assert dropped == {"head.weight", "head.bias"}


def test_chosen_classes_have_the_logits_they_had(seven: ModelWeights) -> None:
    rows = [6, 0, 3]
    made = select_classes(seven, rows)
    frames = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        before, after = seven.model()(frames), made.model()(frames)
    torch.testing.assert_close(after, before[:, rows])
    assert made.labels == ("g", "a", "d")
    (dropped,) = [c.state for c in made.changes if c.what == "left out"]
    assert dropped["head.bias"].shape == (4,)
    with pytest.raises(WeightsError, match="rows 0 to 6, not 7"):
        select_classes(seven, [1, 7])
    with pytest.raises(WeightsError, match="no rows of its head"):
        select_classes(seven, [])


def test_only_a_classifier_has_a_head(pretrained: ModelWeights) -> None:
    with pytest.raises(WeightsError, match="no head to choose rows of"):
        select_classes(pretrained, [0])


def test_index_files_of_both_formats(tmp_path: Path) -> None:
    rows = [5, 0, 6, 2]
    (tmp_path / "official.json").write_text(json.dumps(rows, indent=2))
    (tmp_path / "plain.txt").write_text("5\n 0\n\n6\n2\n")
    assert read_rows(tmp_path / "official.json", 7) == rows
    assert read_rows(tmp_path / "plain.txt", 7) == rows


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1\n2\n7\n", r"index, line 3: the head has rows 0 to 6, not 7"),
        ("1\n-1\n", r"index, line 2: .*not -1"),
        ("1\n\n1\n", r"index, line 3: row 1 is that of line 1 already"),
        ("1\nabseiling\n", r"index, line 2: 'abseiling' is not a row number"),
        ("1\n1.5\n", r"line 2: '1\.5' is not"),
        ("1\n2 3\n", r"line 2: '2 3' is not"),
        ("\n", "holds no row numbers"),
        ("[1, 2, 7]", r"line 1 \(entry 3\): the head has rows"),
        ("[1, true]", r"line 1 \(entry 2\): True is not a row number"),
        ("[1, 2.0]", r"line 1 \(entry 2\): 2\.0 is not"),
        ("[1,\n 2,\n 7]", r"line 3 \(entry 3\): the head has rows"),
        ("[1, 1]", r"line 1 \(entry 2\): row 1 is that of line 1 \(entry 1\) already"),
        ("[1, 2", "not a JSON list"),
        ("[" * 100_000, r"index: not a JSON list \(nested too deeply"),
        ("9" * 5000, r"index, line 1: '9{39} is not a row number"),
        ("[[[1]]]", r"line 1 \(entry 1\): \[\[1\]\] is not"),
        ("[]", "holds no row numbers"),
    ],
)
def test_broken_index_files_name_the_line(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "index").write_text(text)
    with pytest.raises(WeightsError, match=told):
        read_rows(tmp_path / "index", 7)


def test_index_files_that_are_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="can't be read"):
        read_rows(tmp_path / "gone", 7)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WeightsError, match="can't be read"):
        read_rows(tmp_path / "binary", 7)


K710 = OFFICIAL.with_name("downstream_k710_labels.json")


@pytest.mark.skipif(not K710.is_file(), reason="the official code's lists of classes aren't there")
@pytest.mark.parametrize("target", ["400", "600", "700"])
def test_names_of_kinetics_710_go_with_their_rows(target: str, tmp_path: Path) -> None:
    theirs = json.loads(K710.read_text())
    state = classifier(710)
    config = MAEConfig(**TINY)
    weights = ModelWeights("classifier", config, state, origin_of("x", "official", state))
    (tmp_path / "names.txt").write_text("\n".join(theirs["names"]["710"]))
    (tmp_path / "rows.json").write_text(json.dumps(theirs["index_710_to"][target]))
    named = with_labels(weights, tmp_path / "names.txt")
    made = select_classes(named, read_rows(tmp_path / "rows.json", 710))
    assert list(made.labels or ()) == theirs["names"][target]
    assert torch.equal(made.state["head.bias"], state["head.bias"][theirs["index_710_to"][target]])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a\nb\n", r"names: names 2 classes, the head has 7 rows"),
        ("a\nb\n\nd\ne\nf\ng", r"names, line 3: is empty; each line names a class"),
        ("a\nb\nc\nd\n b\nf\ng", r"names, line 5: 'b' is line 2"),
        ("g\nf\ne\nd\nc\nb\na", r"names its classes itself, and otherwise; leave --labels out"),
        (b"\xff\xfe", "names: can't be read"),
    ],
)
def test_broken_lists_of_names(
    text: str | bytes, told: str, seven: ModelWeights, tmp_path: Path
) -> None:
    (tmp_path / "names").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(WeightsError, match=told):
        with_labels(seven, tmp_path / "names")


def test_names_are_a_classifiers(
    pretrained: ModelWeights, seven: ModelWeights, tmp_path: Path
) -> None:
    (tmp_path / "names").write_text("a\nb\nc\nd\ne\nf\ng\n")
    assert with_labels(seven, tmp_path / "names").labels == seven.labels
    assert with_labels(to_classifier(seven, 7), tmp_path / "names").labels == tuple("abcdefg")
    with pytest.raises(WeightsError, match="holds no classifier, so no classes to name"):
        with_labels(pretrained, tmp_path / "names")
