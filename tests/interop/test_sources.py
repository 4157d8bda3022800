"""Where weights come from: wrapped by other code, DeepSpeed's folders, and runs of this package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.random_weights import TINY, TOLD, TOLD_CLASSIFIER, classifier, pretraining, same
from videomae_fast import MAEConfig
from videomae_fast.errors import WeightsError
from videomae_fast.interop import ConversionOptions, convert, load_weights, read_weights
from videomae_fast.training import checkpoint

State = dict[str, Tensor]


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize(
    "prefix", ["model.", "backbone.", "module.model.", "model._orig_mod.", "model.backbone."]
)
@pytest.mark.parametrize("kind", ["pre-training", "classifier", "encoder"])
def test_names_that_other_code_puts_before_are_cut(prefix: str, kind: str, tmp_path: Path) -> None:
    state = classifier() if kind == "classifier" else pretraining()
    if kind == "encoder":
        state = {key: value for key, value in state.items() if key.startswith("encoder.")}
    torch.save({"state_dict": prefixed(prefix)(state), "epoch": 3}, tmp_path / "a.ckpt")
    found = read_weights(tmp_path / "a.ckpt", TOLD if kind == "pre-training" else TOLD_CLASSIFIER)
    assert found.kind == kind
    assert same(dict(found.state), state)


@pytest.mark.parametrize("head", ["head.", "encoder.head."])
def test_a_classifier_may_be_called_an_encoder(head: str, tmp_path: Path) -> None:
    state = prefixed("model.encoder.")(classifier())
    renamed = {k.replace("model.encoder.head.", f"model.{head}"): v for k, v in state.items()}
    torch.save({"state_dict": renamed}, tmp_path / "a.ckpt")
    found = read_weights(tmp_path / "a.ckpt", TOLD_CLASSIFIER)
    assert found.kind == "classifier"
    assert same(dict(found.state), classifier())


def test_prefixes_hide_nothing(tmp_path: Path) -> None:
    """A state dict for another model keeps its names, and what is left over is an error."""
    state = prefixed("model.")(pretraining())
    torch.save(state, tmp_path / "a.pth")
    assert load_weights(tmp_path / "a.pth").keys() == state.keys()
    torch.save(state | {"criterion.weight": torch.ones(2)}, tmp_path / "b.pth")
    with pytest.raises(WeightsError, match=r"b\.pth: .*unused: criterion\.weight"):
        read_weights(tmp_path / "b.pth", TOLD)
    torch.save(state | {"mask_token": torch.ones(1, 1, 16)}, tmp_path / "c.pth")
    with pytest.raises(WeightsError, match=r"c\.pth: two entries become 'mask_token'"):
        read_weights(tmp_path / "c.pth", TOLD)


def deepspeed(output: Path, tag: str = "checkpoint-799", name: str = "mp_rank_00") -> Path:
    """As the official code leaves it with --enable_deepspeed."""
    folder = output / tag
    folder.mkdir(parents=True, exist_ok=True)
    state = {f"_orig_mod.{key}": value for key, value in pretraining().items()}
    shapes = [{key: value.shape for key, value in state.items()}]
    said = {"module": state, "param_shapes": shapes, "optimizer": None, "ds_version": "0.14"}
    torch.save({**said, "epoch": 9}, folder / f"{name}_model_states.pt")
    torch.save({"optimizer_state_dict": {}}, folder / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    (output / "latest").write_text(f"{tag}\n")
    return output


def test_deepspeeds_folders_are_read(tmp_path: Path) -> None:
    output = deepspeed(tmp_path / "out")
    for path in (output, output / "checkpoint-799"):
        assert same(dict(read_weights(path, TOLD).state), pretraining())
    convert(output, tmp_path / "a.safetensors", ConversionOptions("ours"), TOLD)
    assert same(dict(read_weights(tmp_path / "a.safetensors").state), pretraining())


def test_deepspeeds_folders_that_hold_no_whole_model(tmp_path: Path) -> None:
    output = deepspeed(tmp_path / "out")
    for tag, told in (
        ("../out", "is no folder beside it"),
        ("", "is no folder beside it"),
        ("\0", "is no folder beside it|can't be read|is not there"),
        ("global_step7", "names 'global_step7', which is not there; give checkpoint-799 there"),
    ):
        (output / "latest").write_text(tag)
        with pytest.raises(WeightsError, match=rf"latest: .*{told}"):
            read_weights(output, TOLD)
    (output / "latest").write_bytes(b"\xff\xfe")
    with pytest.raises(WeightsError, match="latest: can't be read"):
        read_weights(output, TOLD)
    (tmp_path / "empty" / "tag").mkdir(parents=True)
    (tmp_path / "empty" / "latest").write_text("tag")
    with pytest.raises(WeightsError, match=r"no .*model_states"):
        read_weights(tmp_path / "empty", TOLD)
    for name in ("mp_rank_01", "zero_pp_rank_0_mp_rank_00"):
        cut = deepspeed(deepspeed(tmp_path / name), name=name)
        with pytest.raises(WeightsError, match=r"in pieces .*zero_to_fp32"):
            read_weights(cut, TOLD)


def saved(output: Path, step: int, state: State) -> Path:
    folder = output / "checkpoints" / checkpoint.folder_name(step)
    said = {
        "step": step,
        "model": MAEConfig(**TINY).to_dict(),
        "model_options": {"normalize_target": False, "ignore_flat_cubes": True},
    }
    output.mkdir(exist_ok=True)
    checkpoint.save(folder, state, {"exp_avg.mask_token": torch.ones(1)}, said)
    return folder


def test_a_runs_newest_whole_checkpoint_is_read(tmp_path: Path) -> None:
    output = tmp_path / "run"
    older = saved(output, 4, pretraining())
    newer = saved(output, 8, {key: value + 1 for key, value in pretraining().items()})
    (output / "config.json").write_text('{"size": "base"}')
    for path in (output, newer, newer.parent, newer / "model.safetensors"):
        found = read_weights(path)
        assert found.config == MAEConfig(**TINY)
        assert found.options == {"normalize_target": False, "ignore_flat_cubes": True}
        assert torch.equal(found.state["mask_token"], pretraining()["mask_token"] + 1)
    data = bytearray((newer / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (newer / "model.safetensors").write_bytes(data)
    assert same(dict(read_weights(output).state), pretraining())
    with pytest.raises(WeightsError, match="not whole"):
        read_weights(newer)
    (older / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match="no whole checkpoint there"):
        read_weights(output)
    whole = checkpoint.read(older, verify=False)
    with pytest.raises(WeightsError, match=r"optimizer\.safetensors: not a whole"):
        whole.optimizer()


def test_a_folder_of_other_things_names_the_weights_in_it(tmp_path: Path) -> None:
    torch.save(pretraining(), tmp_path / "checkpoint-799.pth")
    (tmp_path / "log.txt").touch()
    with pytest.raises(WeightsError, match=r"no whole checkpoint.*name one: checkpoint-799\.pth$"):
        read_weights(tmp_path)
