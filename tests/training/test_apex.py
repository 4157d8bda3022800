"""Optimizer apex: when it can't run, and that it updates as torch's does (with a stand-in)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support import fake_apex
from videomae_fast import cli, doctor
from videomae_fast.errors import BackendUnavailableError
from videomae_fast.recipes import PretrainConfig
from videomae_fast.training import pretrain
from videomae_fast.training.checkpoint import read
from videomae_fast.training.errors import CheckpointError
from videomae_fast.training.optimizer import (
    apex_adam,
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
    parameter_groups,
)

CPU = torch.device("cpu")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(5, 3, generator=generator))
        self.bias = nn.Parameter(torch.randn(3, generator=generator))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)


def make(impl: str) -> tuple[Net, Any]:
    net = Net()
    return net, make_optimizer(parameter_groups(net, 0.1), betas=(0.9, 0.95), impl=impl)


def advance(net: Net, optimizer: Any, step: int, *, skip: bool = False) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in (net.weight, net.bias):
        parameter.grad = torch.randn(parameter.shape, generator=generator) * 8
    if skip:
        net.weight.grad = torch.full((5, 3), float("nan"))
    optimizer.grad_scale = torch.tensor(8.0)
    optimizer.found_inf = torch.tensor(float(skip))
    for group in optimizer.param_groups:
        group["lr"] = 0.01 * (step + 1)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    assert net.weight.grad is None


def values(net: Net, optimizer: Any) -> dict[str, Tensor]:
    return {**{n: p.detach() for n, p in net.named_parameters()}, **optimizer_state(net, optimizer)}


@pytest.mark.parametrize("skipped", [(), (0,), (2,), (0, 1, 3, 5)])
def test_it_updates_as_torch_does(
    monkeypatch: pytest.MonkeyPatch, skipped: tuple[int, ...]
) -> None:
    fake_apex.install(monkeypatch)
    pairs = [make(impl) for impl in ("apex", "adamw")]
    for step in range(6):
        for net, optimizer in pairs:
            before = {name: t.clone() for name, t in values(net, optimizer).items()}
            advance(net, optimizer, step, skip=step in skipped)
            same = all(torch.equal(t, before[n]) for n, t in values(net, optimizer).items())
            assert same == (step in skipped)
        ours, truth = (values(*pair) for pair in pairs)
        assert ours.keys() == truth.keys()
        for name in truth:
            torch.testing.assert_close(ours[name], truth[name], rtol=1e-5, atol=1e-7)
    assert ours["step.bias"] == 6 - len(skipped)


@pytest.mark.parametrize(
    ("first", "then"), [("apex", "apex"), ("apex", "adamw"), ("adamw", "apex")]
)
@pytest.mark.parametrize("skip", [False, True])
def test_its_state_goes_on_in_either(
    monkeypatch: pytest.MonkeyPatch, first: str, then: str, skip: bool
) -> None:
    fake_apex.install(monkeypatch)
    whole, half, rest = make("adamw"), make(first), make(then)
    for step in range(6):
        advance(*whole, step, skip=skip and step == 2)
    for step in range(3):  # the last one before the change was left out
        advance(*half, step, skip=skip and step == 2)
    rest[0].load_state_dict(half[0].state_dict())
    load_optimizer_state(*rest, {name: t.clone() for name, t in optimizer_state(*half).items()})
    for step in range(3, 6):
        advance(*rest, step)
    for name, truth in values(*whole).items():
        torch.testing.assert_close(values(*rest)[name], truth, rtol=1e-5, atol=1e-7)


def test_steps_that_differ_can_not_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_apex.install(monkeypatch)
    net, optimizer = make("apex")
    state = {name: t.clone() for name, t in optimizer_state(net, optimizer).items()}
    state["step.bias"] += 1
    with pytest.raises(CheckpointError, match=r"different numbers of steps.*optimizer adamw"):
        load_optimizer_state(net, optimizer, state)


def test_a_run_with_it_is_the_run_without(
    monkeypatch: pytest.MonkeyPatch, tiny: Callable[..., PretrainConfig], tmp_path: Path
) -> None:
    fake_apex.install(monkeypatch)
    runs = {}
    for name in ("adamw", "apex"):
        config = tiny(optimizer=name, clip_grad=0.05)
        result = pretrain(config, output=tmp_path / name, log=lambda _: None)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        runs[name] = [json.loads(line)["loss"] for line in lines], read(result.checkpoint)
    assert runs["apex"][0] == pytest.approx(runs["adamw"][0], rel=1e-4)
    ours, theirs = (runs[name][1].optimizer() for name in ("apex", "adamw"))
    assert ours.keys() == theirs.keys()
    assert all(ours[n].shape == t.shape and ours[n].dtype == t.dtype for n, t in theirs.items())


def test_why_it_can_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        fake_apex.install(patch)
        assert apex_adam.why_not(CPU) is None
        patch.setattr(apex_adam, "DEVICES", ("cuda",))
        assert apex_adam.why_not(CPU) == "NVIDIA apex works on CUDA tensors, not on cpu"
        old = ModuleType("apex.optimizers")
        vars(old)["FusedAdam"] = lambda params, lr: None
        patch.setitem(sys.modules, "apex.optimizers", old)
        assert "too old" in str(apex_adam.why_not(CPU))
        patch.setitem(sys.modules, "amp_C", None)
        assert "installed without its kernels" in str(apex_adam.why_not(CPU))
        patch.setitem(sys.modules, "apex.optimizers", None)
        assert "is not installed" in str(apex_adam.why_not(CPU))
    for missing in ("apex", "apex.optimizers"):
        monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(BackendUnavailableError, match="optimizer apex can't run: NVIDIA apex"):
        make("apex")


def test_the_doctor_says_why_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "apex.optimizers", None)
    checks = {check.name: check for check in doctor.examine()["optimizers"]}
    assert checks["adamw"].state == "ok"
    assert checks["apex"].state == "missing"
    assert "APEX_CUDA_EXT=1" in checks["apex"].detail
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "--help"])
    assert "--optimizer {adamw,apex}" in capsys.readouterr().out
