"""An accelerated model: what was done to it, the way back, and a comparison of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from videomae_fast.errors import AccelerationError
from videomae_fast.interop.acceleration.plans import Plan, told
from videomae_fast.interop.acceleration.proof import Proof
from videomae_fast.interop.acceleration.retype import original_class, retype
from videomae_fast.interop.acceleration.tables import WithTable, place, put_back
from videomae_fast.interop.acceleration.views import DETERMINISTIC


@dataclass(frozen=True)
class Comparison:
    """A loss and its gradients by the original computation and by the accelerated one.

    Attributes:
        loss, accelerated_loss: of the same inputs, weights and random state.
        loss_error: relative.
        gradient_error: norm of the difference of all gradients over the norm of the original's.
        worst, worst_error: the parameter whose gradient differs most, relative to its norm.
    """

    loss: float
    accelerated_loss: float
    loss_error: float
    gradient_error: float
    worst: str
    worst_error: float

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.6f} and {self.accelerated_loss:.6f} (relative error "
            f"{self.loss_error:.1e}), gradients {self.gradient_error:.1e}, worst "
            f"{self.worst_error:.1e} at {self.worst}"
        )


class Acceleration:
    """What :func:`videomae_fast.accelerate` did to a model. Print it to read that.

    Attributes:
        model: the model.
        replaced: (path, what is computed differently) of each replaced module; "" is the model.
        kept: (part, why it stays as it was).
        deterministic: whether attention gives the same bits every time.
        proof: how both computations compared, or None where that was not asked for.
    """

    def __init__(self, model: nn.Module, plan: Plan, *, deterministic: bool = False) -> None:
        self.model = model
        self.deterministic = deterministic
        self.replaced = tuple((step.path, step.what) for step in plan.steps)
        self.kept = plan.kept
        self.proof: Proof | None = None
        self._plan = plan
        self._active = False
        self._apply()

    def undo(self) -> None:
        """Gives the model its own computation back; a second call does nothing.

        What was replaced in the model since, a module or a position table, stays.

        Raises:
            AccelerationError: something else has changed a module's class meanwhile (FSDP2 does).
        """
        if not self._active:
            return
        for step in self._plan.steps:
            if original_class(step.module) is None:
                raise AccelerationError(
                    f"{step.path or 'the model'} has become a {type(step.module).__name__} since: "
                    "undo that first"
                )
        for step in self._plan.steps:
            original = original_class(step.module)
            assert original is not None
            if isinstance(step.module, WithTable):
                put_back(step.module, step.module.table_name)
            step.module.__class__ = original
            vars(step.module).pop(DETERMINISTIC, None)
        self._active = False

    def compare(self, loss: Callable[[nn.Module], Tensor]) -> Comparison:
        """Computes a loss and its gradients both ways, each from the same random state.

        Args:
            loss: takes the model, returns a scalar with its graph; called twice. Gradients held by
                the parameters stay as they are.
        """
        fast, fast_gradients = self._measured(loss)
        with self.undone():
            slow, gradients = self._measured(loss)
        errors = {
            name: float((value - fast_gradients[name]).norm() / value.norm().clamp(min=1e-30))
            for name, value in gradients.items()
        }
        worst = max(errors, key=lambda name: (errors[name] != errors[name], errors[name]))
        apart = sum(float((v - fast_gradients[n]).square().sum()) for n, v in gradients.items())
        size = sum(float(v.square().sum()) for v in gradients.values())
        return Comparison(
            loss=slow,
            accelerated_loss=fast,
            loss_error=abs(fast - slow) / max(abs(slow), 1e-30),
            gradient_error=(apart / max(size, 1e-60)) ** 0.5,
            worst=worst,
            worst_error=errors[worst],
        )

    def __str__(self) -> str:
        state = "" if self._active else " (undone)"
        lines = [f"{self._plan.model}, accelerated{state}"]
        for head, entries in (("replaced", self.replaced), ("kept    ", self.kept)):
            lines += [f"  {head}  {line}" for line in told(entries)]
        lines.append(f"  proof     {self.proof or 'none was asked for'}")
        return "\n".join(lines)

    def _apply(self) -> None:
        for step in self._plan.steps:
            retype(step.module, step.form)
            if isinstance(step.module, WithTable):
                place(step.module, step.module.table_name)
        for step in self._plan.blocks if self.deterministic else ():
            setattr(step.module, DETERMINISTIC, True)
        self._active = True

    @contextmanager
    def undone(self) -> Iterator[None]:
        """The model's own computation for the time of a ``with`` block."""
        active = self._active
        self.undo()
        try:
            yield
        finally:
            if active:
                self._apply()

    def _measured(self, loss: Callable[[nn.Module], Tensor]) -> tuple[float, dict[str, Tensor]]:
        named = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        devices = {p.device for p in named.values() if p.device.type == "cuda"}
        with torch.random.fork_rng(devices=list(devices)):
            value = loss(self.model)
            gradients = torch.autograd.grad(value, list(named.values()), allow_unused=True)
        found = {
            name: torch.zeros_like(parameter) if gradient is None else gradient
            for (name, parameter), gradient in zip(named.items(), gradients, strict=True)
        }
        return float(value.detach()), found
