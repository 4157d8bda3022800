"""NVIDIA apex's FusedAdam in the place of torch's fused AdamW, where apex is built.

Written after apex's source (apex/optimizers/fused_adam.py and csrc/multi_tensor_adam.cu, 2025) and
tested with a stand-in of the same interface; never run with apex itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

DEVICES: tuple[str, ...] = ("cuda",)
"""Types of the devices that apex's kernels work on."""

BUILD = "build it from github.com/NVIDIA/apex with APEX_CPP_EXT=1 APEX_CUDA_EXT=1"


def why_not(device: torch.device) -> str | None:
    """Why FusedAdam can't update parameters on this device, or None.

    The package index has another project called apex, and NVIDIA's own installs without its
    kernels (the module ``amp_C``) where it is not told to build them: both are told apart here.
    """
    try:
        optimizer = import_module("apex.optimizers").FusedAdam
    except ModuleNotFoundError as error:
        return f"NVIDIA apex is not installed ({error}); {BUILD}"
    except Exception as error:  # whatever a foreign package does on import
        return f"NVIDIA apex does not import: {type(error).__name__}: {error}"
    try:
        import_module("amp_C")
    except Exception as error:
        return f"NVIDIA apex is installed without its kernels ({error}); {BUILD}"
    if "capturable" not in inspect.signature(optimizer).parameters:
        return f"this NVIDIA apex is too old: its FusedAdam is not capturable; {BUILD}"
    if device.type not in DEVICES:
        return f"NVIDIA apex works on CUDA tensors, not on {device}"
    return None


@dataclass(frozen=True)
class _Scaler:
    """What FusedAdam asks of a GradScaler."""

    scale: Tensor
    found_inf: Tensor

    def _check_inf_per_device(self, _: torch.optim.Optimizer) -> dict[torch.device, Tensor]:
        return {self.found_inf.device: self.found_inf}

    def _get_scale_async(self) -> Tensor:
        return self.scale


class ApexAdamW(torch.optim.Optimizer):
    """FusedAdam behind the interface of torch's fused AdamW, as a step uses it.

    ``grad_scale`` divides the gradients and ``found_inf`` leaves everything as it is; both are fp32
    tensors on the device, and a step reads nothing back. The state is that of torch's: ``exp_avg``,
    ``exp_avg_sq`` and ``step`` (fp32) of each parameter.

    FusedAdam itself counts steps once per group, before it knows whether the step is left out, and
    by the flag of whichever group came before. So its counters are set before each step from the
    state here, which is the truth.
    """

    def __init__(
        self, groups: Sequence[dict[str, Any]], *, betas: tuple[float, float], eps: float
    ) -> None:
        super().__init__(groups, {"lr": 0.0, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self.grad_scale: Tensor | None = None
        self.found_inf: Tensor | None = None
        # Capturable: learning rate, step, scale and flag are read by the kernel, on the device.
        self._fused = import_module("apex.optimizers").FusedAdam(
            [{"params": group["params"]} for group in self.param_groups], lr=0.0, capturable=True
        )
        self._fused.state = self.state
        for group in self._fused.param_groups:
            device = group["params"][0].device
            group["step"] = torch.zeros(1, dtype=torch.int32, device=device)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient.

        Raises:
            ValueError: a closure.
        """
        if closure is not None:
            raise ValueError("this optimizer takes no closure")
        parameters = [p for group in self.param_groups for p in group["params"]]
        device = parameters[0].device
        none = torch.zeros((), dtype=torch.float32, device=device)
        found_inf = none if self.found_inf is None else self.found_inf
        scale = none + 1 if self.grad_scale is None else self.grad_scale
        for ours, theirs in zip(self.param_groups, self._fused.param_groups, strict=True):
            theirs["lr"].fill_(ours["lr"])  # a tensor on the device
            theirs["step"].copy_(self.state[ours["params"][0]]["step"])
            for name in ("betas", "eps", "weight_decay"):
                theirs[name] = ours[name]
        self._fused._dummy_overflow_buf.zero_()  # of the step before
        self._fused.step(grad_scaler=_Scaler(scale, found_inf))
        counters = [self.state[p]["step"] for p in parameters if p.grad is not None]
        # A list: one tensor would be taken as a number, and read from the device
        torch._foreach_add_(counters, [1 - found_inf] * len(counters))
