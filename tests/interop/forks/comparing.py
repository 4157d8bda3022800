"""What a model computes over some steps of training, and whether another computes the same."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from videomae_fast import accelerate
from videomae_fast.errors import AccelerationError, VideoMAEFastError
from videomae_fast.seeding import seed_generators

TOLERANCE = 1e-5
WORST = 30 * TOLERANCE  # of one parameter: some gradients nearly cancel
LATER = 3 * TOLERANCE  # of all gradients, once an update has taken over what was rounded before
Loss = Callable[[Any, int], Tensor]


@dataclass(frozen=True)
class Step:
    """One training step.

    Attributes:
        loss: a scalar.
        gradients: of each parameter; None: it got none.
        calls: how often hooks of each module were called until then, where they count that.
    """

    loss: float
    gradients: dict[str, Tensor | None]
    calls: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Raised:
    """A computation that ended in an error."""

    error: Exception

    @property
    def is_a_sentence(self) -> bool:
        """Whether this library says that it does not compute this."""
        return isinstance(self.error, VideoMAEFastError | ValueError) and _is_sentence(self.error)


Steps = list[Step] | Raised
Run = Callable[[Any], Steps]


def training(loss: Loss) -> Run:
    """Some steps of :func:`train`, as what is computed with a model."""
    return lambda model: train(model, loss)


def train(model: Any, loss: Loss, rate: float = 0.05) -> Steps:
    """A step of gradient descent in train mode, one in eval mode, a pass without gradients.

    Args:
        loss: takes the model and the number of the step, returns a scalar with its graph.
    """
    found: list[Step] = []
    try:
        for number in range(2):
            model.train(number == 0)
            seed_generators(torch.device("cpu"), number)
            value = loss(model, number)
            model.zero_grad(set_to_none=True)
            value.backward()
            named = dict(model.named_parameters())
            gradients = {n: None if p.grad is None else p.grad.clone() for n, p in named.items()}
            found.append(Step(float(value.detach()), gradients, calls(model)))
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            with torch.no_grad():
                for parameter in named.values():
                    if parameter.grad is not None:
                        parameter.sub_(parameter.grad, alpha=rate)
        with torch.no_grad():
            found.append(Step(float(loss(model, 2)), {}, calls(model)))
    except Exception as error:
        return Raised(error)
    return found


def calls(model: nn.Module) -> dict[str, int]:
    modules = model.named_modules()
    return {name: vars(module)["calls"] for name, module in modules if "calls" in vars(module)}


def difference(expected: Steps, found: Steps) -> str | None:
    """What is not the same, or None.

    An error for an error is the same; so is a sentence that refuses what the original computes, as
    nobody is misled by it.
    """
    if isinstance(expected, Raised):
        if isinstance(found, Raised):
            return None
        return f"the original raises {expected.error!r}, the accelerated model computes something"
    if isinstance(found, Raised):
        return None if found.is_a_sentence else f"raises {found.error!r}"
    for number, (one, other) in enumerate(zip(expected, found, strict=True)):
        told = _difference(one, other, LATER if number else TOLERANCE)
        if told is not None:
            return f"step {number}: {told}"
    return None


def _difference(expected: Step, found: Step, tolerance: float) -> str | None:
    apart = abs(found.loss - expected.loss) / max(abs(expected.loss), 1e-30)
    if not apart <= TOLERANCE:
        return f"loss {expected.loss:.6f}, accelerated {found.loss:.6f} ({apart:.1e})"
    if expected.calls != found.calls:
        return f"hooks called {expected.calls}, accelerated {found.calls}"
    if expected.gradients.keys() != found.gradients.keys():
        return f"parameters {expected.gradients.keys() ^ found.gradients.keys()}"
    apart_squared = size = 0.0
    whole = sum(float(g.square().sum()) for g in expected.gradients.values() if g is not None)
    floor = 1e-6 * whole**0.5  # where a gradient cancels, its rounding errors are all there is
    for name, gradient in expected.gradients.items():
        other = found.gradients[name]
        if gradient is None or other is None:
            # An optimizer passes parameters without a gradient over, but decays those with a zero
            if (gradient is None) != (other is None):
                return f"{name} has {'no ' if other is None else 'a '}gradient where accelerated"
            continue
        between, norm = float((other - gradient).norm()), float(gradient.norm())
        if not between <= WORST * norm + floor:
            return f"the gradient of {name} is {between / max(norm, 1e-30):.1e} off"
        apart_squared, size = apart_squared + between**2, size + norm**2
    error = (apart_squared / max(size, 1e-60)) ** 0.5
    return None if error <= tolerance else f"all gradients are {error:.1e} off"


@dataclass(frozen=True)
class Outcome:
    """What became of a fork.

    Attributes:
        wrong: in which way it was silently wrong, or None.
        refused: the sentence, or None.
        replaced: how many modules compute differently.
        unchangeable: the original itself raises.
    """

    wrong: str | None
    refused: str | None = None
    replaced: int = 0
    unchangeable: bool = False

    def __str__(self) -> str:
        if self.wrong is not None:
            return f"WRONG    {self.wrong}"
        if self.unchangeable:
            return "raises   as the original does"
        if self.refused is not None:
            return f"refused  {self.refused}"
        return f"equal    {self.replaced} modules replaced"


# Returns None; a module that is called in the model's place; or what takes the change back
Change = Callable[[Any], Any]


def nothing(model: Any) -> None:
    """No change."""


@contextmanager
def changed(model: Any, change: Change) -> Iterator[Any]:
    """The model, or what the change puts in its place; global changes are taken back."""
    made = change(model)
    try:
        yield made if isinstance(made, nn.Module) else model
    finally:
        if callable(made) and not isinstance(made, nn.Module):
            made()


def outcome(
    model: nn.Module,
    run: Run,
    *,
    before: Change = nothing,
    after: Change = nothing,
    twin: nn.Module | None = None,
    unknown_code: Literal["keep", "compare"] = "keep",
) -> Outcome:
    """Accelerates a model and compares it with its twin.

    Args:
        model: any model.
        run: what is computed with it.
        before: a change made before `accelerate`.
        after: one made after it.
        twin: an equal model that stays as it is; a deep copy where none is given.
        unknown_code: of `accelerate`.
    """
    twin = copy.deepcopy(model) if twin is None else twin
    try:
        with changed(twin, before) as original, changed(original, after) as original:
            expected = run(original)
    except Exception as error:
        expected = Raised(error)
    try:
        with changed(model, before) as ours:
            # What comes afterwards is not what the proof at the call is about
            settings = {"prove": after is nothing, "unknown_code": unknown_code}
            return _accelerated(ours, run, after, expected, settings)
    except Exception as error:
        if isinstance(expected, Raised):
            return Outcome(None, unchangeable=True)
        raise error


def _accelerated(
    model: Any, run: Run, after: Change, expected: Steps, settings: dict[str, Any]
) -> Outcome:
    kinds = [type(module) for module in model.modules()]
    refused, replaced = None, 0
    try:
        replaced = len(accelerate(model, **settings).replaced)
    except AccelerationError as error:
        refused = str(error)
        if not _is_sentence(error) or not names_a_part(refused, model):
            return Outcome(f"refused without saying what it is about: {error!r}")
        if [type(module) for module in model.modules()] != kinds:
            return Outcome("refused, but changed")
    except Exception as error:
        return Outcome(f"accelerate raises {error!r}")
    try:
        with changed(model, after) as ours:
            found = run(ours)
    except Exception as error:
        found = Raised(error)
    if isinstance(found, Raised) and found.is_a_sentence and refused is None:
        refused = str(found.error)
    raises = isinstance(expected, Raised)
    return Outcome(difference(expected, found), refused, replaced, unchangeable=raises)


def names_a_part(sentence: str, model: nn.Module) -> bool:
    """Whether a sentence names a class or an attribute of the model."""
    known = {type(module).__name__ for module in model.modules()}
    for name in (*dict(model.named_modules()), *model.state_dict()):
        known.update(name.split("."))
    words = set(re.findall(r"[A-Za-z_]\w*", sentence))
    return bool(words & {name for name in known if not name.isdigit() and name})


def _is_sentence(error: Exception) -> bool:
    return len(str(error).split()) >= 4
