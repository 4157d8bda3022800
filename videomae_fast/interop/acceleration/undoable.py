"""An accelerated model: what was done to it, the way back, and a comparison of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from videomae_fast.errors import AccelerationError
from videomae_fast.interop.acceleration.plans import Plan, Step
from videomae_fast.interop.acceleration.retype import original_class, retype
from videomae_fast.interop.acceleration.tables import WithTable, place


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
    """

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        self.model = model
        self.replaced = tuple((step.path, step.what) for step in plan.steps)
        self.kept = plan.kept
        self._plan = plan
        self._tables: dict[str, Tensor] = {}
        self._active = False
        self._apply()

    def undo(self) -> None:
        """Gives the model its own computation back; a second call does nothing.

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
                setattr(step.module, step.module.table_name, self._tables[step.path])
            step.module.__class__ = original
        self._active = False

    def compare(self, loss: Callable[[nn.Module], Tensor]) -> Comparison:
        """Computes a loss and its gradients both ways, each from the same random state.

        Args:
            loss: takes the model, returns a scalar with its graph; called twice. Gradients held by
                the parameters stay as they are.
        """
        fast, fast_gradients = self._measured(loss)
        with self._undone():
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
        for (pattern, what), steps in groupby(self._plan.steps, key=_pattern):
            count = len(list(steps))
            times = f" ({count})" if count > 1 else ""
            lines.append(f"  replaced  {pattern}{times}: {what}")
        lines += [f"  kept      {part}: {why}" for part, why in self.kept]
        return "\n".join(lines)

    def _apply(self) -> None:
        for step in self._plan.steps:
            retype(step.module, step.form)
            if isinstance(step.module, WithTable):
                name = step.module.table_name
                self._tables[step.path] = getattr(step.module, name)
                place(step.module, name)
        self._active = True

    @contextmanager
    def _undone(self) -> Iterator[None]:
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


def _pattern(step: Step) -> tuple[str, str]:
    """The step's path with block numbers left out, and what it does."""
    parts = ["*" if part.isdigit() else part for part in step.path.split(".")]
    return ".".join(parts) or "the model", step.what
