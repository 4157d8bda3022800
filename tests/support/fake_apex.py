"""A stand-in for NVIDIA apex, on the CPU: the parts that `apex_adam` touches, with apex's habits.

Its counter of steps is kept per group and raised by the flag that the last group left; a kernel
leaves everything as it is where the flag is 1, and otherwise unscales the gradients in place.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from videomae_fast.training.optimizer import apex_adam


def multi_tensor_adam_capturable(
    chunk: int, skip: Tensor, lists: list[list[Tensor]], lr: Tensor, beta1: float, beta2: float,
    eps: float, step: Tensor, mode: int, bias_correction: int, decay: float, inv_scale: Tensor,
) -> None:  # fmt: skip
    assert skip.dtype == step.dtype == torch.int32
    assert lr.dtype == inv_scale.dtype == torch.float32
    assert mode == bias_correction == 1
    run = skip != 1  # no reading back: apex's kernel sees it on the device
    for grad, parameter, mean, square in zip(*lists, strict=True):
        assert mean.dtype == square.dtype == torch.float32
        g = grad * inv_scale
        m = beta1 * mean + (1 - beta1) * g
        v = beta2 * square + (1 - beta2) * g * g
        unbiased = m / (1 - beta1**step), v / (1 - beta2**step)
        p = parameter - lr * (unbiased[0] / (unbiased[1].sqrt() + eps) + decay * parameter)
        for old, new in ((grad, g), (mean, m), (square, v), (parameter, p)):
            old.copy_(torch.where(run, new, old))


class FusedAdam(torch.optim.Optimizer):
    def __init__(self, params: Any, *, lr: float, capturable: bool, **settings: Any) -> None:
        assert capturable
        defaults = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, **settings}
        super().__init__(params, {"lr": torch.tensor(lr), **defaults})
        for group in self.param_groups:
            group["lr"] = group["lr"].to(
                group["params"][0].device
            )  # a float of a group's own fails
        self._dummy_overflow_buf = torch.tensor([0], dtype=torch.int)

    def zero_grad(self) -> None:  # type: ignore[override]
        raise AssertionError("apex's takes no set_to_none")

    def step(self, closure: None = None, grad_scaler: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["step"] += (self._dummy_overflow_buf != 1).to(torch.int)
            with_grad = [p for p in group["params"] if p.grad is not None]
            states = [self.state[p] for p in with_grad]
            device = group["params"][0].device
            self._dummy_overflow_buf.copy_(grad_scaler._check_inf_per_device(self)[device])
            inverse = grad_scaler._get_scale_async().double().reciprocal().float()
            lists = [
                [p.grad for p in with_grad],
                [p.data for p in with_grad],
                *([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq")),
            ]
            sys.modules["amp_C"].multi_tensor_adam_capturable(
                65536, self._dummy_overflow_buf, lists, group["lr"], *group["betas"], group["eps"],
                group["step"], 1, 1, group["weight_decay"], inverse,
            )  # fmt: skip


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the stand-in where apex would be, for one test; it works on the CPU."""
    kernels, apex, optimizers = (ModuleType(name) for name in ("amp_C", "apex", "apex.optimizers"))
    vars(kernels)["multi_tensor_adam_capturable"] = multi_tensor_adam_capturable
    vars(optimizers)["FusedAdam"] = FusedAdam
    for module in (kernels, apex, optimizers):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(apex_adam, "DEVICES", ("cuda", "cpu"))
