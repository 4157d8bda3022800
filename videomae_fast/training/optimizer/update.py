"""Gradients to weights: by torch's optimizer, on a process's parts, or in one pass with copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from videomae_fast.ops import adamw
from videomae_fast.training.optimizer import parts
from videomae_fast.training.optimizer.adamw import tell_step
from videomae_fast.training.optimizer.shadows import Shadows


class Update(Protocol):
    """An update in three calls, with what a step decides between them."""

    def gradients(self) -> list[Tensor]:
        """Those of all trained parameters that have one."""
        ...

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """Of all of them together, fp32."""
        ...

    def apply(self, scale: Tensor, skip: Tensor) -> None:
        """New weights, and gradients forgotten.

        Args:
            scale: fp32 scalar that the gradients are divided by.
            skip: fp32 scalar; where it is not 0, weights, moments and counters stay.
        """
        ...


def make_update(optimizer: torch.optim.Optimizer, shadows: Shadows | None) -> Update:
    """The update for an optimizer of :func:`videomae_fast.training.optimizer.make_optimizer`.

    Args:
        shadows: copies of weights that the model works on, or None.
    """
    if shadows is None and parts.serves(optimizer):
        return parts.PartsUpdate(optimizer)
    device = optimizer.param_groups[0]["params"][0].device
    if shadows is None or adamw.why_not(device) is not None:
        return TorchUpdate(optimizer, shadows)
    if type(optimizer) is not torch.optim.AdamW:  # another library's
        return TorchUpdate(optimizer, shadows)
    return OnePass(optimizer, shadows)


class TorchUpdate:
    """By the optimizer's own step; where there are copies, casts before it and after it."""

    def __init__(self, optimizer: torch.optim.Optimizer, shadows: Shadows | None) -> None:
        self._optimizer, self._shadows = optimizer, shadows
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def gradients(self) -> list[Tensor]:
        if self._shadows is not None:
            self._shadows.hand_over()
        return [p.grad for p in self._parameters if p.grad is not None]

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        return torch.nn.utils.get_total_norm(gradients)

    def apply(self, scale: Tensor, skip: Tensor) -> None:
        tell_step(self._optimizer, scale, skip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._shadows is not None:
            self._shadows.write()


class OnePass:
    """By one launch for what has copies and one for the rest: no casts.

    The optimizer keeps the state, in torch's form; hooks on its step run as ever.

    Args:
        optimizer: torch's AdamW with its state made.
        shadows: the copies that gradients come for.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, shadows: Shadows) -> None:
        self._optimizer, self._shadows = optimizer, shadows
        copy_of = dict(zip(shadows.masters, shadows.copies, strict=True))
        groups = optimizer.param_groups
        self._groups = groups
        parameters = [(p, i) for i, group in enumerate(groups) for p in group["params"]]
        self._parts: list[tuple[list[nn.Parameter], adamw.AdamWUpdate]] = []
        for copied in (True, False):
            own = [(p, i) for p, i in parameters if (p in copy_of) == copied and p.requires_grad]
            if own:
                self._parts.append(self._part(own, copy_of if copied else None))
        self._device = parameters[0][0].device
        self._hooked = torch.optim.Optimizer.profile_hook_step(self._step)
        self._decays: tuple[list[float], Tensor] | None = None
        self._checked = False

    def _part(
        self, own: list[tuple[nn.Parameter, int]], copy_of: dict[nn.Parameter, nn.Parameter] | None
    ) -> tuple[list[nn.Parameter], adamw.AdamWUpdate]:
        masters = [p for p, _ in own]
        working = masters if copy_of is None else [copy_of[p] for p in masters]
        state = [self._optimizer.state[p] for p in masters]
        update = adamw.AdamWUpdate(
            masters,
            [each["exp_avg"] for each in state],
            [each["exp_avg_sq"] for each in state],
            None if copy_of is None else working,
            [i for _, i in own],
            working[0].dtype,
        )
        return working, update

    def gradients(self) -> list[Tensor]:
        return [p.grad for working, _ in self._parts for p in working if p.grad is not None]

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        norms: list[Tensor] = []
        for dtype in dict.fromkeys(gradient.dtype for gradient in gradients):
            own = [gradient for gradient in gradients if gradient.dtype == dtype]
            # In fp32 from the start: a norm in bf16 would be the gradient's to eight bits
            norms += torch._foreach_norm(own, 2.0, dtype=torch.float32)
        total: Tensor = torch.linalg.vector_norm(torch.stack(norms))
        return total

    def apply(self, scale: Tensor, skip: Tensor) -> None:
        """As :meth:`Update.apply`.

        Raises:
            ValueError: a parameter has no gradient, or counts other updates than the others.
        """
        tell_step(self._optimizer, scale, skip)
        self._hooked(self._optimizer, scale, skip)
        for working, _ in self._parts:
            for p in working:
                p.grad = None

    @torch.no_grad()
    def _step(self, optimizer: torch.optim.Optimizer, scale: Tensor, skip: Tensor) -> None:
        steps = [optimizer.state[p]["step"] for group in self._groups for p in group["params"]]
        self._check(steps)
        torch._foreach_add_(steps, [1 - skip] * len(steps))  # one tensor would be read as a number
        group, rates, decays = self._groups[0], self._rates(), self._decay_rates()
        for working, update in self._parts:
            gradients = [p.grad for p in working if p.grad is not None]
            update(
                gradients,
                rates=rates,
                decays=decays,
                step=steps[0],
                scale=scale,
                skip=skip,
                betas=group["betas"],
                eps=group["eps"],
            )

    def _check(self, steps: Sequence[Tensor]) -> None:
        """Once, since it waits for the device: all count alike, as one counter serves."""
        if not self._checked:
            counts = sorted(set(torch.stack(list(steps)).tolist()))
            if len(counts) > 1:
                raise ValueError(f"parameters have had {counts} updates: not one number for all")
            self._checked = True

    def _rates(self) -> Tensor:
        rates = [group["lr"] for group in self._groups]
        if isinstance(rates[0], Tensor):  # of a step that is recorded
            return torch.stack([rate.float() for rate in rates])
        return torch.tensor(rates, dtype=torch.float32).to(self._device)

    def _decay_rates(self) -> Tensor:
        decays = [float(group["weight_decay"]) for group in self._groups]
        if self._decays is None or self._decays[0] != decays:
            values = torch.tensor(decays, dtype=torch.float32).to(self._device)
            self._decays = (decays, values)
        return self._decays[1]
