"""AdamW in one pass: against fp64 and torch's own step by step, copies, scale, steps left out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from tests.support.devices import NEEDS_GPU
from tests.support.interpreter import ON_GPU
from tests.support.steps import NoRead
from videomae_fast.ops import adamw
from videomae_fast.training.optimizer import make_optimizer
from videomae_fast.training.optimizer.adamw import rates_to_device
from videomae_fast.training.optimizer.shadows import Shadows
from videomae_fast.training.optimizer.update import OnePass, TorchUpdate, make_update

pytestmark = pytest.mark.usefixtures("interpreted")
SHAPES = [(70, 129), (1,), (5000,), (3, 4, 5), (64, 64)]
COPIED = ("0", "3", "4")
BETAS = [(0.9, 0.95), (0.9, 0.999)]


@pytest.fixture
def device() -> str:
    return "cuda" if ON_GPU else "cpu"


class Net(nn.Module):
    """Parameters of odd sizes, of which some have copies."""

    def __init__(self, device: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        for i, shape in enumerate(SHAPES):
            self.register_parameter(str(i), nn.Parameter(torch.randn(shape, device=device)))

    def groups(self) -> list[dict[str, object]]:
        own = dict(self.named_parameters())
        return [
            {"params": [own["0"], own["2"]], "weight_decay": 0.05},
            {"params": [own["1"], own["3"], own["4"]], "weight_decay": 0.0, "lr_scale": 0.5},
        ]


def made(
    kind: type[OnePass | TorchUpdate], device: str, betas: tuple[float, float]
) -> tuple[Net, torch.optim.Optimizer, Shadows, OnePass | TorchUpdate]:
    net = Net(device)
    optimizer = make_optimizer(net.groups(), betas=betas)
    for i, group in enumerate(optimizer.param_groups):
        group["lr"] = 1e-2 / (1 + i)
    shadows = Shadows(net, COPIED)
    return net, optimizer, shadows, kind(optimizer, shadows)


def give(net: Net, step: int) -> list[Tensor]:
    """Gradients of a step: to the copies in bf16, to the others in fp32."""
    generator = torch.Generator().manual_seed(step)
    given = []
    for parameter in net.parameters():
        drawn = torch.randn(parameter.shape, generator=generator) * 10.0 ** (-2 * step)
        parameter.grad = drawn.to(parameter)
        given.append(parameter.grad.double())
    return given


def run(
    kind: type[OnePass | TorchUpdate],
    device: str,
    betas: tuple[float, float],
    skips: Sequence[float],
    scale: float = 3.0,
) -> dict[str, Tensor]:
    net, optimizer, shadows, update = made(kind, device, betas)
    for step, skip in enumerate(skips):
        give(net, step)
        norm = update.norm(update.gradients())
        assert norm.dtype == torch.float32
        update.apply(torch.tensor(scale, device=device), torch.tensor(skip, device=device))
        assert all(p.grad is None for p in (*net.parameters(), *shadows.masters))
    found = {f"copy.{k}": v.detach().clone() for k, v in net.named_parameters() if k in COPIED}
    with shadows.away():
        for name, parameter in net.named_parameters():
            found[f"weight.{name}"] = parameter.detach().clone()
            for kind_of, value in optimizer.state[parameter].items():
                found[f"{kind_of}.{name}"] = value.clone()
    return found


@pytest.mark.parametrize("betas", BETAS)
def test_torchs_own_steps(betas, device):
    """Six steps, two of them left out; weights, moments, counters and copies."""
    skips = [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]
    ours, theirs = (run(kind, device, betas, skips) for kind in (OnePass, TorchUpdate))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype
        if name.startswith("copy."):
            master = ours["weight" + name.removeprefix("copy")]
            unit = 0.0 if ON_GPU else 2.0**-7  # the interpreter cuts off instead of rounding
            torch.testing.assert_close(ours[name], master.bfloat16(), rtol=unit, atol=0)
        else:
            # torch's kernel on a GPU has 1 - beta ** step in fp32, which cancels
            near, small = (1e-4, 2e-6) if ON_GPU else (2e-6, 1e-8)
            torch.testing.assert_close(ours[name], value, rtol=near, atol=small)
    assert float(ours["step.0"]) == 4


@pytest.mark.parametrize("betas", BETAS)
def test_against_fp64(betas, device):
    net, optimizer, shadows, update = made(OnePass, device, betas)
    weights = [p.detach().double() for p in shadows.masters]
    first, second = ([torch.zeros_like(w) for w in weights] for _ in range(2))
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    for step in range(3):
        given = dict(zip(dict(net.named_parameters()), give(net, step), strict=True))
        update.apply(torch.tensor(2.0, device=device), torch.tensor(0.0, device=device))
        for i, (name, master) in enumerate(zip(COPIED, shadows.masters, strict=True)):
            grad = given[name] / 2
            weights[i] = weights[i] * (1 - rates[id(master)] * decays[id(master)])
            first[i] = betas[0] * first[i] + (1 - betas[0]) * grad
            second[i] = betas[1] * second[i] + (1 - betas[1]) * grad**2
            root = (second[i] / (1 - betas[1] ** (step + 1))).sqrt() + 1e-8
            weights[i] -= rates[id(master)] * first[i] / (1 - betas[0] ** (step + 1)) / root
    for master, weight in zip(shadows.masters, weights, strict=True):
        torch.testing.assert_close(master.double(), weight, rtol=3e-7, atol=3e-7)


def test_a_step_left_out_changes_nothing(device):
    """Even one whose gradients are no numbers."""
    net, optimizer, shadows, update = made(OnePass, device, BETAS[0])
    give(net, 0)
    update.apply(torch.tensor(1.0, device=device), torch.tensor(0.0, device=device))
    before = [p.detach().clone() for p in (*shadows.masters, *net.parameters())]
    kept = [v.clone() for p in shadows.masters for v in optimizer.state[p].values()]
    give(net, 1)
    for parameter in net.parameters():
        parameter.grad.fill_(float("nan"))
    update.apply(torch.tensor(float("nan"), device=device), torch.tensor(1.0, device=device))
    for now, then in zip((*shadows.masters, *net.parameters()), before, strict=True):
        assert torch.equal(now, then)
    for now, then in zip(
        (v for p in shadows.masters for v in optimizer.state[p].values()), kept, strict=True
    ):
        assert torch.equal(now, then)


def test_hooks_on_the_optimizers_step_run(device):
    net, optimizer, _, update = made(OnePass, device, BETAS[0])
    seen = []
    optimizer.register_step_post_hook(lambda stepped, *_: seen.append(float(stepped.found_inf)))
    give(net, 0)
    update.apply(torch.tensor(1.0, device=device), torch.tensor(1.0, device=device))
    assert seen == [1.0]


def test_rates_on_the_device(device):
    """As a recorded step has them: what is written there counts."""
    found = []
    for on_device in (False, True):
        net, optimizer, shadows, update = made(OnePass, device, BETAS[0])
        if on_device:
            rates_to_device(optimizer, torch.device(device))
        for step in range(2):
            for group in optimizer.param_groups:
                if on_device:
                    group["lr"].fill_(0.1 * step)
                else:
                    group["lr"] = 0.1 * step
            give(net, step)
            update.apply(torch.tensor(1.0, device=device), torch.tensor(0.0, device=device))
        found.append([p.detach().clone() for p in shadows.masters])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_what_does_not_fit_is_refused(device):
    net, optimizer, _, update = made(OnePass, device, BETAS[0])
    one, zero = (torch.tensor(x, device=device) for x in (1.0, 0.0))
    give(net, 0)
    next(net.parameters()).grad = None
    with pytest.raises(ValueError, match="2 tensors for 3 weights"):
        update.apply(one, zero)
    give(net, 0)
    optimizer.state[optimizer.param_groups[0]["params"][0]]["step"].fill_(7)
    net2, optimizer2, _, update2 = made(OnePass, device, BETAS[0])
    optimizer2.state[optimizer2.param_groups[0]["params"][0]]["step"].fill_(7)
    give(net2, 0)
    with pytest.raises(ValueError, match=r"have had \[0.0, 7.0\] updates"):
        update2.apply(one, zero)
    square = [torch.zeros(8, 8, device=device)]
    with pytest.raises(ValueError, match=r"contiguous torch\.float32"):
        adamw.AdamWUpdate([square[0].t()], square, square, None, [0], torch.float32)


def test_who_updates(monkeypatch):
    net = Net("cpu")
    optimizer = make_optimizer(net.groups(), betas=BETAS[0])
    assert isinstance(make_update(optimizer, None), TorchUpdate)
    shadows = Shadows(net, COPIED)
    assert isinstance(make_update(optimizer, shadows), TorchUpdate if ON_GPU else OnePass)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert isinstance(make_update(optimizer, shadows), TorchUpdate)


def test_addresses_by_launches_alone(device):
    """As a recorded step has them: 40 tensors, a table that held others."""
    weights, firsts, seconds = ([torch.zeros(3, device=device) for _ in range(40)] for _ in "abc")
    update = adamw.AdamWUpdate(weights, firsts, seconds, None, [0] * 40, torch.float32)
    gradients = [torch.full((3,), float(i), device=device) for i in range(40)]
    table = update._tensors.addresses
    before = table.clone()
    update.write([gradient.data_ptr() for gradient in gradients])
    assert table[:, 3].tolist() == [gradient.data_ptr() for gradient in gradients]
    for column in (0, 1, 2, 4):
        assert torch.equal(table[:, column], before[:, column])


@pytest.mark.parametrize("shapes", [pytest.param(SHAPES, marks=NEEDS_GPU)])
def test_a_recorded_step(shapes):
    """Three replays against three steps; gradients have other addresses in the recording."""
    skip, scale = (torch.tensor(x, device="cuda") for x in (0.0, 2.0))
    found = []
    for recorded in (False, True):
        net, optimizer, shadows, update = made(OnePass, "cuda", BETAS[0])
        rates_to_device(optimizer, torch.device("cuda"))
        give(net, 0)
        static = [p.grad.clone() for p in net.parameters()]

        def step(net=net, static=static, update=update):
            for parameter, gradient in zip(net.parameters(), static, strict=True):
                parameter.grad = gradient * 1.0
            update.apply(scale, skip)

        step()
        if recorded:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
            graph.replay()
            graph.replay()
        else:
            step()
            step()
        found.append([p.detach().clone() for p in (*shadows.masters, *net.parameters())])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_nothing_is_read_from_the_device(device):
    """After the first step, which looks once whether all count alike."""
    net, _, _, update = made(OnePass, device, BETAS[0])
    one, zero = (torch.tensor(x, device=device) for x in (1.0, 0.0))
    for step in range(2):
        give(net, step)
        with NoRead() if step else nullcontext():
            update.norm(update.gradients())
            update.apply(one, zero)
