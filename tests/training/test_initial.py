"""Runs that begin from weights: what fits, what stays new, and what is recorded of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.runs import altered, interrupt_after, losses, quiet
from videomae_fast.errors import UsageError, WeightsError
from videomae_fast.interop import SourceHints, read_weights, to_classifier, write_weights
from videomae_fast.recipes import PretrainConfig
from videomae_fast.tasks.pretraining import build_model
from videomae_fast.training import pretrain
from videomae_fast.training.checkpoint import read
from videomae_fast.training.errors import CheckpointError

Make = Callable[..., PretrainConfig]


@pytest.fixture
def base(tiny: Make) -> PretrainConfig:
    """Rates of 0: a run that leaves its weights as they were."""
    return tiny(steps=2, warmup_epochs=0, base_lr=0.0, min_lr=0.0)


@pytest.fixture
def released(base: PretrainConfig, tmp_path: Path) -> Path:
    """An official file: weights of another seed, nested, in fp16."""
    path = tmp_path / "released.pth"
    state = build_model(altered(base, seed=7)).state_dict()
    torch.save({"model": {key: value.half() for key, value in state.items()}}, path)
    return path


def official(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(path, weights_only=True)["model"]
    return state


def begun(config: PretrainConfig, output: Path) -> tuple[dict[str, Tensor], Any, list[str]]:
    """A run's weights, its record, and its log."""
    said: list[str] = []
    saved = read(pretrain(config, output=output, log=said.append).checkpoint)
    return saved.model(), saved.state["init"], said


@pytest.mark.parametrize("layout", ["official", "ours", "hugging-face", "run", "checkpoint"])
def test_every_layout_is_a_beginning(
    base: PretrainConfig, released: Path, tmp_path: Path, layout: Any
) -> None:
    path = {"official": released, "ours": tmp_path / "ours.safetensors"}.get(layout, tmp_path / "w")
    if layout in ("run", "checkpoint"):
        result = pretrain(altered(base, init=str(released)), output=path, log=quiet)
        path = result.checkpoint if layout == "checkpoint" else path
    elif layout != "official":
        shape = base.model
        told = SourceHints(shape.heads, shape.decoder_heads, shape.frames, shape.image_size)
        write_weights(read_weights(released, told), path, layout)
    weights, record, said = begun(altered(base, init=str(path)), tmp_path / "run")
    expected = official(released)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], value.float()) for key, value in expected.items())
    assert record["new"] == []
    assert record["kind"] == "pre-training"
    if layout == "official":
        digest = hashlib.sha256(released.read_bytes()).hexdigest()
        assert record["sha256"] == {"released.pth": digest}
        assert record["file"] == str(released)
        assert said[0] == (
            f"began from {released} (official, pre-training; released.pth sha256 {digest})"
        )


def test_a_classifier_leaves_the_decoder_new(
    base: PretrainConfig, tmp_path: Path, tiny: Make
) -> None:
    pretrain(altered(base, seed=7), output=tmp_path / "one", log=quiet)
    source = read_weights(
        read(tmp_path / "one/checkpoints/step-00000002").folder / "model.safetensors"
    )
    write_weights(to_classifier(source, 3), tmp_path / "classes.safetensors", "ours")
    config = altered(base, init=str(tmp_path / "classes.safetensors"))
    weights, record, said = begun(config, tmp_path / "run")
    drawn = build_model(base).state_dict()
    for key, value in weights.items():
        new = not key.startswith("encoder.") or key.startswith("encoder.norm.")
        assert torch.equal(value, drawn[key] if new else source.state[key]), key
        assert (key in record["new"]) == new
    told = {line.split(":")[0]: line for line in said[:4]}
    assert "encoder norm (64 values)" in told["stays new"]
    assert "decoder blocks" in told["stays new"]
    assert told["left out"] == "left out: classifier norm (64 values), classifier head (99 values)"


def test_what_does_not_fit_is_named(base: PretrainConfig, released: Path, tmp_path: Path) -> None:
    def fails(config: PretrainConfig, message: str) -> None:
        with pytest.raises(WeightsError, match=message):
            pretrain(config, output=tmp_path / "run", log=quiet)
        assert not list((tmp_path / "run").iterdir())

    config = altered(base, init=str(released))
    fails(altered(config, depth=2), "depth is 1 there and 2 in this run: give the run the same")
    fails(altered(config, width=64, decoder_width=32), "width is 32 there and 64 .*decoder_width")
    fails(altered(config, mlp_ratio=2.0), r"hidden is 128 there and 64 in this run")
    fails(altered(config, init=str(tmp_path / "none.pth")), "none.pth: no such weights file")
    state = official(released)
    del state["decoder.norm.weight"]
    torch.save(state, tmp_path / "less.pth")
    fails(altered(config, init=str(tmp_path / "less.pth")), "missing: decoder.norm.weight")
    torch.save({**official(released), "extra": torch.zeros(1)}, tmp_path / "more.pth")
    fails(altered(config, init=str(tmp_path / "more.pth")), "unused: extra")
    state = official(released)
    state["mask_token"].view(-1)[3] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    fails(altered(config, init=str(tmp_path / "nan.pth")), r"not finite: mask_token \(1 of 16")


def test_learned_positions_of_another_grid(base: PretrainConfig, tmp_path: Path) -> None:
    learned = altered(base, learned_positions=True)
    pretrain(learned, output=tmp_path / "first", log=quiet)
    longer = altered(learned, frames=8, init=str(tmp_path / "first"))
    with pytest.raises(WeightsError, match=r"positions are for Grid\(slots=2.* the same im"):
        pretrain(longer, output=tmp_path / "second", log=quiet)


@pytest.mark.parametrize("field", ["mlp_ratio", "decoder_mlp_ratio"])
def test_mlps_without_hidden_values_are_refused_before_a_run(
    base: PretrainConfig, tmp_path: Path, field: str
) -> None:
    with pytest.raises(UsageError, match="MLPs have no hidden values"):
        pretrain(altered(base, **{field: 1e-9}), output=tmp_path / "run", log=quiet)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_other_settings_are_told(base: PretrainConfig, released: Path, tmp_path: Path) -> None:
    config = altered(base, init=str(released), normalize_target=False, final_norm_eps=1e-5)
    _, _, said = begun(config, tmp_path)
    assert "differs: normalize_target was True there and is False in this run" in said
    assert "differs: final_norm_eps was 1e-06 there and is 1e-05 in this run" in said


def test_a_resume_reads_the_weights_no_more(
    tiny: Make, released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(init=str(released), checkpoint_every=2)
    pretrain(config, output=tmp_path / "whole", log=quiet)
    with monkeypatch.context() as patched:
        interrupt_after(patched, 3, lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pretrain(config, output=tmp_path / "parts", log=quiet)
    released.unlink()
    pretrain(config, output=tmp_path / "parts", log=quiet)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    longer = altered(config, init=None, epochs=5)
    result = pretrain(longer, output=tmp_path / "parts", log=quiet)
    record = read(result.checkpoint).state["init"]
    assert record["file"] == str(released)
    assert json.loads((tmp_path / "parts" / "config.json").read_text())["model"]["init"] is None
    with pytest.raises(
        CheckpointError, match=rf"its run began from {released} .*, so --init other"
    ):
        pretrain(altered(longer, init="other.pth"), output=tmp_path / "parts", log=quiet)


def test_weights_for_a_run_that_has_begun_are_refused(
    tiny: Make, released: Path, tmp_path: Path
) -> None:
    pretrain(tiny(epochs=2), output=tmp_path / "run", log=quiet)
    with pytest.raises(CheckpointError, match="did not begin from weights, so --init"):
        pretrain(tiny(init=str(released)), output=tmp_path / "run", log=quiet)
