"""A step against plain torch: one loss over all tokens, clipped, stepped by unfused AdamW."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.support.steps import NoRead, batch, new_step, split
from videomae_fast.data import ClipBatch
from videomae_fast.errors import UsageError
from videomae_fast.masks import Masks
from videomae_fast.masks.spec import mask_spec
from videomae_fast.recipes import PretrainConfig
from videomae_fast.tasks.pretraining import build_model
from videomae_fast.training.optimizer import parameter_groups
from videomae_fast.training.parallel.ddp import replicate
from videomae_fast.training.parallel.world import World
from videomae_fast.training.step import TrainStep


@pytest.mark.filterwarnings("error::FutureWarning")
def test_position_tables_are_not_broadcast(
    tiny: Callable[..., PretrainConfig], tmp_path: Path, random_frames: Any
) -> None:
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = build_model(tiny())
        assert list(model.buffers())
        replica = replicate(model, World(0, 2, torch.device("cpu")))
        masks = Masks.sample(2, model.config.grid, mask_spec(tiny().masks))
        for _ in range(2):  # the second one agrees on the order of gradients
            replica(random_frames(2, 4, 32, 32), masks).loss.backward()
        with torch.profiler.profile() as profile:
            for _ in range(3):
                replica(random_frames(2, 4, 32, 32), masks).loss.backward()
        counts = {event.key: event.count for event in profile.key_averages()}
        assert counts["c10d::allreduce_"] == 3
        assert counts.get("c10d::broadcast_", 0) == 0
    finally:
        dist.destroy_process_group()


Make = Callable[..., PretrainConfig]


def plain_steps(
    config: PretrainConfig, batches: list[ClipBatch], lr: float
) -> tuple[Any, list[Any]]:
    """What a step should do, written without any of TrainStep's means."""
    model = build_model(config)
    groups = parameter_groups(model, config.optim.weight_decay, model.no_weight_decay())
    optimizer = torch.optim.AdamW(
        groups, lr=lr, betas=config.optim.betas, foreach=False, fused=False
    )
    numbers = []
    for each in batches:
        good = each.ok.nonzero().flatten()
        kept = Masks.from_seeds(each.mask_seeds[good], model.config.grid, mask_spec(config.masks))
        out = model(each.frames[good], kept)
        optimizer.zero_grad()
        out.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_grad or 1e9)
        optimizer.step()
        numbers.append((out.loss.item(), norm.item()))
    return model, numbers


def our_steps(config: PretrainConfig, batches: list[ClipBatch], lr: float) -> tuple[Any, list[Any]]:
    step = new_step(config)
    numbers = []
    for number, each in enumerate(batches):
        for micro, part in enumerate(split(each, config.optim.accumulation)):
            step.forward_backward(part, step=number, micro=micro)
        row = dict(zip(step.columns, step.update(lr).tolist(), strict=True))
        numbers.append((row["loss_sum"] / row["loss_weight"], row["grad_norm"]))
        assert row["failed_clips"] == int((~each.ok).sum())
        assert row["non_finite"] == 0
    return step.model, numbers


@pytest.mark.parametrize("accumulation", [1, 2, 4])
@pytest.mark.parametrize("clip_grad", [0.0, 0.05])
@pytest.mark.parametrize("masks", ["running-cell", "random"])
def test_it_is_the_mean_over_all_tokens(
    tiny: Make, accumulation: int, clip_grad: float, masks: str
) -> None:
    """Also where micro-batches have different numbers of tokens, and clips have failed."""
    config = tiny(
        decoder_mask=masks, accumulation=accumulation, clip_grad=clip_grad, encoder_mask="random"
    )
    batches = [batch(8, 1, failed=(0, 1)), batch(8, 2), batch(8, 3, failed=(5,))]
    expected, plain = plain_steps(config, batches, 1e-3)
    found, ours = our_steps(config, batches, 1e-3)
    assert ours == [pytest.approx(numbers, rel=2e-5) for numbers in plain]
    if clip_grad:
        assert min(norm for _, norm in plain) > clip_grad, "nothing would be clipped"
    state = expected.state_dict()
    for name, tensor in found.state_dict().items():
        # AdamW's first steps are about lr whatever the gradient: compare with that
        assert torch.allclose(tensor, state[name], rtol=0, atol=2e-5), name


def test_a_step_without_clips_changes_nothing(tiny: Make) -> None:
    config = tiny()
    step = new_step(config)
    step.forward_backward(batch(8, 1), step=0, micro=0)
    step.update(1e-3)
    before = _state(step)
    step.forward_backward(batch(8, 2, failed=tuple(range(8))), step=1, micro=0)
    row = dict(zip(step.columns, step.update(1e-3).tolist(), strict=True))
    assert row["loss_weight"] == 0
    assert row["non_finite"] == 0
    assert _same(before, _state(step))
    step.forward_backward(batch(8, 3), step=2, micro=0)
    assert step.update(1e-3)[0].isfinite()
    assert not _same(before, _state(step))


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_weights_stay_those_before_the_first_bad_step(
    tiny: Make, monkeypatch: pytest.MonkeyPatch, poison: float, where: str
) -> None:
    config = tiny()
    step = new_step(config)
    step.forward_backward(batch(8, 1), step=0, micro=0)
    assert step.update(1e-3)[-1] == 0
    before = _state(step)
    with monkeypatch.context() as patched:
        forward = step.replica.forward

        def poisoned(*args: Any, **options: Any) -> Any:
            out = forward(*args, **options)
            if where == "loss":
                out.loss_sum = out.loss_sum * poison
            return out

        patched.setattr(step.replica, "forward", poisoned)
        step.forward_backward(batch(8, 2), step=1, micro=0)
        if where == "gradient":
            gradient = next(step.model.parameters()).grad
            assert gradient is not None
            gradient.view(-1)[0] = poison
        assert step.update(1e-3)[-1] == 1
    step.forward_backward(batch(8, 3), step=2, micro=0)
    assert step.update(1e-3)[-1] == 1, "a good step after a bad one is still after it"
    assert _same(before, _state(step))


def test_drop_path_is_drawn_from_each_clips_own_seed(tiny: Make) -> None:
    """Not from the process, the micro-batch or torch's generator, with which losses would move."""
    losses = []
    for parts in (1, 2, 4):
        step = new_step(tiny(drop_path=0.5, depth=3, accumulation=parts))
        torch.rand(parts)
        for micro, part in enumerate(split(batch(8, 1), parts)):
            step.forward_backward(part, step=parts, micro=micro)
        losses.append(float(step.update(0.0)[0]))
    assert losses == [pytest.approx(losses[0], rel=1e-6)] * 3
    step = new_step(tiny(depth=3))
    step.forward_backward(batch(8, 1), step=0, micro=0)
    assert losses[0] != pytest.approx(float(step.update(0.0)[0]), rel=1e-5)


def test_a_parameter_without_a_gradient_is_an_error(tiny: Make) -> None:
    """What wraps a model may lose gradients without a word."""
    step = new_step(tiny())
    step.forward_backward(batch(8, 1), step=0, micro=0)
    step.model.decoder.head.bias.grad = None
    with pytest.raises(UsageError, match=r"1 trained parameters no gradient: decoder\.head\.bias"):
        step.update(1e-3)


def test_the_seed_gives_the_weights(tiny: Make) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (build_model(tiny(seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first.decoder.head.weight, again.decoder.head.weight)
    assert not torch.equal(first.decoder.head.weight, other.decoder.head.weight)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("masks", ["running-cell", "random"])
def test_a_step_reads_nothing_from_the_device(tiny: Make, masks: str) -> None:
    config = tiny(decoder_mask=masks, clip_grad=0.05, drop_path=0.2, depth=2, accumulation=2)
    step = new_step(config)
    parts = split(batch(8, 1, failed=(3,)), 2)
    with NoRead():
        for micro, part in enumerate(parts):
            step.forward_backward(part, step=0, micro=micro)
        row = step.update(1e-3)
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoRead():
        float(row[0])


def test_bf16_autocast_keeps_fp32_weights(tiny: Make) -> None:
    losses = []
    for precision in ("auto", "fp32", "bf16"):
        config = tiny(precision=precision)
        step = new_step(config)
        step.forward_backward(batch(8, 1), step=0, micro=0)
        assert {p.grad.dtype for p in step.model.parameters() if p.grad is not None} == {
            torch.float32
        }
        losses.append(step.update(0.0)[0].item())
    assert losses[0] == losses[1] != losses[2]
    assert losses[2] == pytest.approx(losses[1], rel=2e-2)


def _state(step: TrainStep) -> list[Tensor]:
    moments = [t for state in step.optimizer.state.values() for t in state.values()]
    return [t.detach().clone() for t in (*step.model.state_dict().values(), *moments)]


def _same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
