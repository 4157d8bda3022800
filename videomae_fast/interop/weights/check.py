"""What is checked of a state dict: names, shapes, dtypes, and that its values are finite."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from torch import Tensor, nn

from videomae_fast.errors import WeightsError

_LONGEST: Final = 120  # of a name, in messages


def load_into(model: nn.Module, state: Mapping[str, Tensor], *, origin: str = "weights") -> None:
    """Loads a state dict whole: nothing missing, nothing unused, every shape right.

    Args:
        model: to load into.
        state: tensors by the model's names.
        origin: begins the message of an error.

    Raises:
        WeightsError: lists what is missing, unused or of another shape.
    """
    check_fits(model, state, origin=origin)
    model.load_state_dict(state)


def check_fits(model: nn.Module, state: Mapping[str, Tensor], *, origin: str = "weights") -> None:
    """Compares names and shapes.

    Args:
        model: may be on the meta device.
        state: tensors that shall be the model's.
        origin: begins the message of an error.

    Raises:
        WeightsError: lists what is missing, unused or of another shape.
    """
    own = model.state_dict()
    missing = sorted(set(own) - set(state))
    unused = sorted(set(state) - set(own))
    shapes = [
        f"{key} {list(state[key].shape)} (the model has {list(own[key].shape)})"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    problems = [
        f"{what}: {named(keys)}"
        for what, keys in (("missing", missing), ("unused", unused), ("other shape", shapes))
        if keys
    ]
    if problems:
        raise WeightsError(f"{origin} do not fit {type(model).__name__}: {'; '.join(problems)}")


def named(keys: Sequence[str], most: int = 8) -> str:
    """The first of some keys, and how many more there are."""
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(key[:_LONGEST] for key in keys[:most]) + more


def check_floating(state: Mapping[str, Tensor], *, origin: str) -> None:
    """Weights are floating-point numbers.

    Raises:
        WeightsError: names the tensors that are none.
    """
    whole = sorted(key for key, value in state.items() if not value.is_floating_point())
    if whole:
        raise WeightsError(f"{origin}: not floating-point: {named(whole)}")


def check_finite(state: Mapping[str, Tensor], *, origin: str) -> None:
    """No weight is NaN or infinite. Reads every value, and waits for the device.

    Raises:
        WeightsError: names the first tensor with such values.
    """
    bad = not_finite(state)
    if bad is not None:
        raise WeightsError(f"{origin}: holds a weight that is not finite: {bad}")


def not_finite(state: Mapping[str, Tensor]) -> str | None:
    """The first of some tensors with a NaN or an infinite value, in words; None without one.

    Reads every value, and waits for the device.
    """
    suspects = {name: tensor for name, tensor in state.items() if not _bounded(tensor)}
    return first_where(suspects, lambda tensor: tensor.isfinite().logical_not())


def _bounded(tensor: Tensor) -> bool:
    """Whether the smallest and the largest value are finite; a NaN would be both.

    That takes a pass over the values, and no memory as a mask does.
    """
    if not tensor.numel():
        return True
    least, most = (tensor.float() if tensor.itemsize == 1 else tensor).aminmax()
    return bool(least.isfinite() & most.isfinite())


def first_where(state: Mapping[str, Tensor], wrong: Callable[[Tensor], Tensor]) -> str | None:
    """The first of some tensors with a value that is `wrong`, in words; None without one.

    Args:
        wrong: from a tensor to booleans of its shape.
    """
    for name, tensor in state.items():
        count = int(wrong(tensor).sum())
        if count:
            return f"{name} ({count:,} of {tensor.numel():,} values)"
    return None
