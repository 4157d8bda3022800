"""bf16 copies of weights: fewer casts, fp32 masters, checkpoints as ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.runs import altered, interrupt_after, losses, quiet
from tests.support.steps import CPU, batch, curve, new_step
from tests.support.tape import TapeRecorder
from videomae_fast.errors import UsageError
from videomae_fast.ops.registry import forced
from videomae_fast.recipes import PretrainConfig
from videomae_fast.tasks.pretraining import Reconstruction, build_model, settings_of
from videomae_fast.training import load_model, pretrain
from videomae_fast.training.captured import CapturedStep
from videomae_fast.training.checkpoint import read
from videomae_fast.training.parallel.world import World
from videomae_fast.training.step_mode import make_step

Make = Callable[..., PretrainConfig]
HALF = (torch.float32, torch.bfloat16)


class Casts(TorchDispatchMode):
    """Counts what turns fp32 into bf16 or back: a cast, or a copy of many tensors at once."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.name().split("::")[1].split(".")[0]
        pair: tuple[Any, Any] = (None, None)
        if name == "_to_copy":
            pair = (args[0], out)
        elif name == "copy_":
            pair = (args[1], args[0])
        elif name == "_foreach_copy_":
            pair = (args[1][0], args[0][0])
        if {getattr(each, "dtype", None) for each in pair} == set(HALF):
            self.counts[name] += 1
        return out


def casts(config: PretrainConfig) -> Counter[str]:
    step = new_step(config)
    with Casts() as counter:
        step.forward_backward(batch(8, 1), step=0, micro=0)
        step.update(1e-3)
    return counter.counts


def test_five_casts_a_step_whatever_the_depth(tiny: Make) -> None:
    config = tiny(precision="bf16", depth=2)
    counts = [casts(altered(config, depth=depth)) for depth in (2, 4)]
    assert counts[1].total() - counts[0].total() == 2 * 8, "autocast: 8 a block"
    for depth in (2, 4):
        found = casts(altered(config, depth=depth, shadow_weights=True))
        assert found == {"_foreach_copy_": 2, "_to_copy": 3}


def test_the_loss_curve_is_that_of_fp32_within_the_noise_of_bf16(tiny: Make) -> None:
    config = tiny(precision="bf16")
    configs = altered(config, precision="fp32"), config, altered(config, shadow_weights=True)
    fp32, casting, shadows = (curve(each, 40, batches=2) for each in configs)
    assert sum(fp32[-4:]) < 0.9 * sum(fp32[:4]), "nothing was learnt"
    noise = max(abs(a - b) for a, b in zip(casting, fp32, strict=True))
    assert 0 < noise < 0.02
    assert max(abs(a - b) for a, b in zip(shadows, fp32, strict=True)) < 2 * noise


def test_masters_are_fp32_and_copies_are_theirs(tiny: Make) -> None:
    step = new_step(tiny(precision="bf16", shadow_weights=True))
    before = {name: value.clone() for name, value in build_model(tiny()).state_dict().items()}
    for number in range(3):
        step.forward_backward(batch(8, number), step=number, micro=0)
        grads = {n: p.grad.dtype for n, p in step.model.named_parameters() if p.grad is not None}
        assert grads["encoder.blocks.0.attn.qkv.weight"] == torch.bfloat16
        assert grads["encoder.blocks.0.norm1.weight"] == torch.float32
        step.update(1e-3)
        assert all(parameter.grad is None for parameter in step.model.parameters())
    copies = {name: value.clone() for name, value in step.model.state_dict().items()}
    with step.whole_weights():
        masters = {name: value.clone() for name, value in step.model.state_dict().items()}
    assert masters.keys() == copies.keys() == before.keys()
    changed = {name for name, value in masters.items() if not torch.equal(value, before[name])}
    assert changed == masters.keys()
    for name, master in masters.items():
        assert master.dtype == torch.float32
        assert torch.equal(copies[name], master.to(copies[name].dtype)), name
    assert all(torch.equal(v, copies[n]) for n, v in step.model.state_dict().items())
    assert copies["decoder.head.weight"].dtype == torch.bfloat16


def test_checkpoints_are_unchanged_and_runs_go_on(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(precision="bf16", shadow_weights=True, checkpoint_every=4)
    whole = pretrain(config, output=tmp_path / "whole", log=quiet).checkpoint
    with monkeypatch.context() as patched:
        interrupt_after(patched, 6, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pretrain(config, output=tmp_path / "parts", log=quiet)
    parts = pretrain(config, output=tmp_path / "parts", log=quiet).checkpoint
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    plain = pretrain(
        altered(config, shadow_weights=False), output=tmp_path / "plain", log=quiet
    ).checkpoint
    one, other, without = (read(path) for path in (whole, parts, plain))
    for kind in ("model", "optimizer"):
        mine, theirs, known = (getattr(each, kind)() for each in (one, other, without))
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
        assert {n: (t.dtype, t.shape) for n, t in mine.items()} == {
            n: (t.dtype, t.shape) for n, t in known.items()
        }
    assert load_model(whole)[0].decoder.head.weight.dtype == torch.float32


def test_a_captured_step_writes_its_copies_too(tiny: Make) -> None:
    config = tiny(precision="bf16", shadow_weights=True)
    with forced("reference", attention="sdpa", linear="torch"):
        eager, recorder = new_step(config), TapeRecorder()
        parts = Reconstruction(config), build_model(config), settings_of(config), CPU
        step = CapturedStep(*parts, recorder)
        for number in range(3):
            for each in (eager, step):
                each.forward_backward(batch(8, number), step=number, micro=0)
            assert torch.equal(eager.update(1e-3), step.update(1e-3))
    assert recorder.tape.names.count("_foreach_copy_") == 2


@pytest.mark.parametrize(
    ("changed", "world", "why"),
    [
        ({}, CPU, r"this run computes in fp32 \(precision auto, cpu\): use precision bf16"),
        ({"precision": "bf16", "accumulation": 2}, CPU, "gradients of micro-batches of a step in"),
        ({"precision": "bf16"}, World(0, 2, torch.device("cpu")), "gradients of 2 processes in bf"),
    ],
)
def test_where_they_would_change_more_they_are_refused(
    tiny: Make, changed: dict[str, Any], world: World, why: str
) -> None:
    config = tiny(shadow_weights=True, **changed)
    with pytest.raises(UsageError, match=why):
        make_step(Reconstruction(config), build_model(config), settings_of(config), world, quiet)
