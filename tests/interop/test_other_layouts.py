"""Weights of mmaction2, of action detection and of fine-tuning in the official code, both ways."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.support import other_code
from tests.support.random_weights import TOLD_CLASSIFIER, classifier, pretraining, same
from videomae_fast import VideoClassifier
from videomae_fast.errors import WeightsError
from videomae_fast.interop import (
    ConversionOptions,
    SourceHints,
    convert,
    read_weights,
    to_classifier,
    write_weights,
)
from videomae_fast.interop.weights.layouts.mmaction2 import from_mmaction2_keys, to_mmaction2_keys
from videomae_fast.interop.weights.model_weights import detector_options, official_options
from videomae_fast.models.detector import ActionDetector
from videomae_fast.models.positions import sinusoid_table

State = dict[str, Tensor]
DETECTOR = SourceHints(heads=2, frames=4, image_size=32, detector=True)
GOLDEN = Path(__file__).parents[1] / "golden"
MMACTION2 = ConversionOptions("mmaction2")


def detector(**changed: Any) -> State:
    """Tensors of action detection's model, by the names of VideoMAE-Action-Detection."""
    return {k.replace("fc_norm.", "norm."): v for k, v in classifier(80, **changed).items()}


class PatchEmbedding(nn.Module):
    """mmcv's, by its names."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Conv3d(3, 32, (2, 16, 16), (2, 16, 16))


class Recogniser(nn.Module):
    """The modules of mmaction2's classifier or detector, by its names."""

    def __init__(self, *, boxes: bool = False) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.patch_embed = PatchEmbedding()
        self.backbone.register_buffer("pos_embed", sinusoid_table(8, 32)[None])
        self.backbone.blocks = nn.ModuleList(other_code.Block(32, 2) for _ in range(2))
        norm = nn.LayerNorm(32, eps=1e-6)
        head = nn.Module()
        head.fc_cls = nn.Linear(32, 80 if boxes else 7)
        if boxes:
            self.backbone.norm, self.roi_head = norm, nn.Module()
            self.roi_head.bbox_head = head
        else:
            self.backbone.fc_norm, self.cls_head = norm, head


@pytest.mark.parametrize("boxes", [False, True])
def test_the_names_are_those_of_mmaction2s_modules(boxes: bool, tmp_path: Path) -> None:
    """What convert writes loads strictly there, and what they save comes back bit for bit."""
    state = detector() if boxes else classifier(7)
    hints = DETECTOR if boxes else TOLD_CLASSIFIER
    torch.save(state, tmp_path / "official.pth")
    report = convert(tmp_path / "official.pth", tmp_path / "mm.pth", MMACTION2, hints)
    assert report.written["positions"].values == 8 * 32
    theirs = Recogniser(boxes=boxes)
    saved = torch.load(tmp_path / "mm.pth", weights_only=True)["state_dict"]
    theirs.load_state_dict(saved, strict=True)
    assert torch.equal(theirs.backbone.blocks[1].mlp.layers[1].bias, state["blocks.1.mlp.fc2.bias"])
    torch.save({"meta": {}, "state_dict": theirs.state_dict()}, tmp_path / "epoch_20.pth")
    found = read_weights(tmp_path / "epoch_20.pth", TOLD_CLASSIFIER)
    assert found.kind == ("detector" if boxes else "classifier")
    assert found.origin.layout == "mmaction2"
    assert same(dict(found.state), state)
    convert(
        tmp_path / "epoch_20.pth",
        tmp_path / "back.safetensors",
        ConversionOptions("official"),
        TOLD_CLASSIFIER,
    )
    assert same(load_file(tmp_path / "back.safetensors"), state)


@pytest.mark.parametrize("boxes", [False, True])
def test_layouts_of_names_are_inverse(boxes: bool) -> None:
    state = detector(layer_scale=0.1) if boxes else classifier(7, learned_positions=True)
    theirs = to_mmaction2_keys(state, detector=boxes)
    assert same(from_mmaction2_keys(theirs), state)
    bare = {key.removeprefix("backbone."): value for key, value in theirs.items()}
    assert same(from_mmaction2_keys(bare), state)
    with pytest.raises(WeightsError, match=r"no counterpart in mmaction2's model: decoder\.norm"):
        to_mmaction2_keys(state | {"decoder.norm.bias": torch.ones(1)})
    with pytest.raises(WeightsError, match=r"two entries become 'norm\.bias'"):
        from_mmaction2_keys({"norm.bias": torch.ones(1), "backbone.norm.bias": torch.ones(1)})


def test_learned_positions_of_mmaction2_are_kept(tmp_path: Path) -> None:
    state = classifier(7, learned_positions=True)
    torch.save({"state_dict": to_mmaction2_keys(state)}, tmp_path / "mm.pth")
    found = read_weights(tmp_path / "mm.pth", TOLD_CLASSIFIER)
    assert found.config.learned_positions
    assert same(dict(found.state), state)


def test_positions_of_another_clip_are_noticed(tmp_path: Path) -> None:
    table = {"backbone.pos_embed": sinusoid_table(16, 32)[None]}
    torch.save({"state_dict": to_mmaction2_keys(classifier(7)) | table}, tmp_path / "mm.pth")
    with pytest.raises(WeightsError, match=r"mm\.pth: pos_embed is not the fixed sinusoid of"):
        read_weights(tmp_path / "mm.pth", TOLD_CLASSIFIER)
    longer = SourceHints(heads=2, frames=8, image_size=32)
    assert read_weights(tmp_path / "mm.pth", longer).config.frames == 8


def test_mmaction2_has_no_decoder(tmp_path: Path) -> None:
    torch.save(pretraining(), tmp_path / "a.pth")
    hints = SourceHints(heads=2, decoder_heads=1, frames=4, image_size=32)
    with pytest.raises(WeightsError, match="holds pre-training weights; mmaction2 has classifie"):
        convert(tmp_path / "a.pth", tmp_path / "b.pth", MMACTION2, hints)
    with pytest.raises(WeightsError, match=r"ends in \.pth"):
        convert(tmp_path / "a.pth", tmp_path / "b.safetensors", MMACTION2, hints)


def test_a_detector_is_told_from_a_classifier_of_the_first_token(tmp_path: Path) -> None:
    torch.save({"model": detector()}, tmp_path / "ava.pth")
    with pytest.raises(WeightsError, match=r"ava\.pth: has norm\.weight .* \(say so with --det"):
        read_weights(tmp_path / "ava.pth", TOLD_CLASSIFIER)
    found = read_weights(tmp_path / "ava.pth", DETECTOR)
    assert (found.kind, found.classes) == ("detector", 80)
    assert same(dict(found.state), detector())
    torch.save({"model": classifier()}, tmp_path / "cls.pth")
    torch.save({"model": pretraining()}, tmp_path / "pre.pth")
    for name in ("cls", "pre"):
        with pytest.raises(WeightsError, match=rf"{name}\.pth: holds no detector; leave --detec"):
            read_weights(tmp_path / f"{name}.pth", DETECTOR)


def test_what_becomes_of_a_detector(tmp_path: Path) -> None:
    torch.save({"model": detector()}, tmp_path / "ava.pth")
    with pytest.raises(WeightsError, match="Hugging Face's VideoMAE has no detector"):
        convert(tmp_path / "ava.pth", tmp_path / "hf", ConversionOptions("hugging-face"), DETECTOR)
    convert(tmp_path / "ava.pth", tmp_path / "a.safetensors", ConversionOptions("ours"), DETECTOR)
    ours = read_weights(tmp_path / "a.safetensors")
    assert (ours.kind, ours.classes) == ("detector", 80)
    assert same(dict(ours.state), detector())
    official = ConversionOptions("official")
    report = convert(tmp_path / "ava.pth", tmp_path / "b.pth", official, DETECTOR)
    assert any("that it is a detector: to be said again" in c.reason for c in report.changes)
    made = to_classifier(read_weights(tmp_path / "ava.pth", DETECTOR), 5)
    assert isinstance(made.model(), VideoClassifier)
    left = {key for change in made.changes if change.what == "left out" for key in change.state}
    assert left == {"head.weight", "head.bias", "norm.weight", "norm.bias"}
    assert torch.equal(made.state["fc_norm.weight"], torch.ones(32))
    assert torch.equal(made.state["blocks.0.attn.q_bias"], detector()["blocks.0.attn.q_bias"])
    model = read_weights(tmp_path / "ava.pth", DETECTOR).model()
    assert isinstance(model, ActionDetector)
    assert detector_options(model) == detector_options(ActionDetector(model.config, 80))
    told = replace(ours, options={**detector_options(model), "bins": 8, "mean": [0.5] * 3})
    write_weights(told, tmp_path / "c.safetensors", "ours")
    again = read_weights(tmp_path / "c.safetensors").model()
    assert isinstance(again, ActionDetector)
    assert (again.rois.size, again.pixels.mean) == (8, (0.5, 0.5, 0.5))
    assert official_options("detector") == detector_options(model)
    report = convert(tmp_path / "c.safetensors", tmp_path / "d.pth", official)
    options = [c.reason for c in report.changes if "option" in c.reason]
    assert options == [
        "option bins=8, which official files can't say",
        "option mean=[0.5, 0.5, 0.5], which official files can't say",
    ]


def test_weights_that_are_not_finite_are_not_converted(tmp_path: Path) -> None:
    state = classifier(7)
    state["blocks.1.norm1.bias"][3] = float("nan")
    torch.save(state, tmp_path / "a.pth")
    reason = r"a\.pth: holds a weight that is not finite: blocks\.1\.norm1\.bias \(1 of 32 values\)"
    with pytest.raises(WeightsError, match=reason):
        convert(
            tmp_path / "a.pth", tmp_path / "b.pth", ConversionOptions("official"), TOLD_CLASSIFIER
        )
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def golden(name: str, replaced: str = "") -> tuple[State, dict[str, Any]]:
    """The official code's tensors by its own names, and what the file says of them."""
    path = GOLDEN / f"downstream_{name}.safetensors"
    with safe_open(path, "pt") as file:
        info = json.loads(file.metadata()["info"])
    tensors = load_file(path)
    params = {k.removeprefix("param/"): v for k, v in tensors.items() if k.startswith("param/")}
    return params, {**info, "tensors": tensors}


def hints_of(config: dict[str, Any], **more: Any) -> SourceHints:
    return SourceHints(
        heads=config["num_heads"],
        frames=config["all_frames"],
        image_size=config["img_size"],
        **more,
    )


def test_fine_tuned_weights_of_the_official_code_go_both_ways(tmp_path: Path) -> None:
    """Through ours, Hugging Face's, ours, mmaction2's: the same keys, bits and logits."""
    state, said = golden("finetune_step")
    hints = hints_of(said["config"])
    torch.save(
        {"module": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "a.pth"
    )
    names = [f"class {i}" for i in range(said["num_classes"])]
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    labelled = ConversionOptions("ours", labels=tmp_path / "names.txt")
    convert(tmp_path / "a.pth", tmp_path / "b.safetensors", labelled, hints)
    convert(tmp_path / "b.safetensors", tmp_path / "hf", ConversionOptions("hugging-face"))
    back = ConversionOptions("ours", official_eps=True)
    convert(tmp_path / "hf", tmp_path / "c.safetensors", back)
    read = read_weights(tmp_path / "c.safetensors")
    assert read.labels == tuple(names)
    convert(tmp_path / "c.safetensors", tmp_path / "mm.pth", MMACTION2)
    report = convert(tmp_path / "mm.pth", tmp_path / "d.pth", ConversionOptions("official"), hints)
    assert not [change for change in report.changes if change.what == "differs"]
    assert same(torch.load(tmp_path / "d.pth", weights_only=True)["model"], state)
    with torch.no_grad():
        logits = read.model()(said["tensors"]["frames"])
    torch.testing.assert_close(logits, said["tensors"]["clean.logits"], atol=1e-5, rtol=1e-4)


def test_action_detection_of_the_official_code_goes_both_ways(tmp_path: Path) -> None:
    state, said = golden("ava_model")
    hints = hints_of(said["config"], detector=True)
    torch.save({"module": state}, tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "mm.pth", MMACTION2, hints)
    found = read_weights(tmp_path / "mm.pth", hints_of(said["config"]))
    assert (found.kind, found.classes) == ("detector", said["num_classes"])
    convert(tmp_path / "mm.pth", tmp_path / "b.pth", ConversionOptions("official"), hints)
    assert same(torch.load(tmp_path / "b.pth", weights_only=True)["model"], state)
