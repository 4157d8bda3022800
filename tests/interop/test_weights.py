"""Weights files: nested, prefixed, broken, and with code in them."""

from __future__ import annotations

import argparse
import os

import pytest
import torch
from safetensors.torch import save_file

from videomae_fast.errors import WeightsError
from videomae_fast.interop import load_into, load_weights

STATE = {"a.weight": torch.arange(4.0), "b": torch.ones(2)}


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Linear(2, 2, bias=False)
        self.b = torch.nn.Parameter(torch.zeros(2))


class Exploit:
    """Runs a command when unpickled."""

    def __init__(self, marker) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"model": s, "epoch": 3},
        lambda s: {"module": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {"model": {f"_orig_mod.{k}": v for k, v in s.items()}},
        lambda s: {"module._orig_mod." + k: v for k, v in s.items()},
    ],
)
def test_nested_and_prefixed(wrap, tmp_path):
    torch.save(wrap(STATE), tmp_path / "w.pth")
    loaded = load_weights(tmp_path / "w.pth")
    assert loaded.keys() == STATE.keys()
    assert all(torch.equal(loaded[k], STATE[k]) for k in STATE)


def test_safetensors(tmp_path):
    save_file({"_orig_mod.b": torch.ones(2)}, tmp_path / "w.safetensors")
    assert torch.equal(load_weights(tmp_path / "w.safetensors")["b"], torch.ones(2))
    (tmp_path / "w.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        load_weights(tmp_path / "w.safetensors")


def test_code_is_never_executed(tmp_path):
    torch.save({"model": STATE, "args": Exploit(tmp_path / "marker")}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="would execute code"):
        load_weights(tmp_path / "w.pth")
    assert not (tmp_path / "marker").exists()


def test_official_checkpoints_hold_their_command_line(tmp_path):
    args = argparse.Namespace(lr=1e-3, betas=[0.9, 0.95])
    torch.save({"model": STATE, "args": args, "optimizer": {"state": {}}}, tmp_path / "w.pth")
    assert load_weights(tmp_path / "w.pth").keys() == STATE.keys()


def test_errors_name_the_file(tmp_path):
    with pytest.raises(WeightsError, match=r"gone\.pth: no such"):
        load_weights(tmp_path / "gone.pth")
    (tmp_path / "empty.pth").touch()
    with pytest.raises(WeightsError, match=r"empty\.pth: not a torch checkpoint"):
        load_weights(tmp_path / "empty.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds a list"):
        load_weights(tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="not a state dict: epoch"):
        load_weights(tmp_path / "other.pth")
    torch.save({"x": torch.ones(1), "module.x": torch.ones(1)}, tmp_path / "twice.pth")
    with pytest.raises(WeightsError, match="become 'x'"):
        load_weights(tmp_path / "twice.pth")


def test_nothing_is_left_out():
    good = {"a.weight": torch.ones(2, 2), "b": torch.ones(2)}
    model = Model()
    load_into(model, good)
    assert torch.equal(model.b.detach(), torch.ones(2))
    with pytest.raises(WeightsError, match=r"missing: b; unused: c; other shape: a\.weight \[3\]"):
        load_into(model, {"a.weight": torch.ones(3), "c": torch.ones(1)}, origin="x.pth")
