"""Equality before speed: loss and gradients of a contender against the transcription's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.contenders.base import Contender, Precision, Variant


class UncheckedError(RuntimeError):
    """A speedup was asked for of what is not, or not shown to be, the same computation."""


@dataclass(frozen=True)
class Tolerance:
    """Allowed relative errors: of the loss, of each parameter's gradient, of all together."""

    loss: float
    each_gradient: float
    all_gradients: float


# In reduced precision single small gradients are noise; the whole gradient is not.
TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(1e-5, 1e-3, 1e-4),
    "bf16": Tolerance(2e-3, float("inf"), 5e-2),
    "fp16": Tolerance(2e-3, float("inf"), 5e-2),
}


# Two operands of 4 bits: 3.7 % of a product, where bf16 has .3 % (docs/kernels/fp8_linear.md).
FP8 = Tolerance(5e-3, float("inf"), 1e-1)


def tolerance(variant: Variant) -> Tolerance:
    """What a contender's results may be off by."""
    return FP8 if variant.fp8 else TOLERANCES[variant.precision]


@dataclass(frozen=True)
class Truth:
    """Loss and gradients of the reference, on the CPU, and who it is."""

    name: str
    loss: float
    gradients: dict[str, Tensor]


@dataclass(frozen=True)
class Check:
    """A contender against the reference; errors are relative.

    Attributes:
        worst: the parameter whose gradient differs most, and by how much.
        kept_bytes: what the forward pass keeps for the backward pass, weights and inputs apart;
            0 for a captured step, whose forward pass is not run by itself.
    """

    contender: str
    masking: str
    reference: str
    loss: float
    loss_error: float
    gradient_error: float
    worst: str
    worst_error: float
    kept_bytes: int
    passed: bool

    def told(self) -> str:
        """A line for the terminal."""
        verdict = "equal" if self.passed else "NOT EQUAL"
        return (
            f"{self.masking}, {self.contender} and {self.reference}: {verdict} "
            f"(loss {self.loss:.6f}, relative error {self.loss_error:.1e}; gradient "
            f"{self.gradient_error:.1e}, worst {self.worst_error:.1e} at {self.worst})"
        )


def run_once(contender: Contender) -> tuple[float, dict[str, Tensor], int]:
    """(loss, gradients on the CPU, bytes kept for the backward pass); weights are not changed."""
    kept = KeptForBackward(contender)
    contender.optimizer.zero_grad()
    with fp32_convolutions(contender):
        with kept:
            loss = contender.loss()
        contender.backward(loss)
    found = {
        name: gradient.detach().float().cpu() / contender.scale
        for name, gradient in contender.gradients().items()
    }
    contender.optimizer.zero_grad()
    return float(loss.detach()), found, kept.bytes


@contextmanager
def fp32_convolutions(contender: Contender) -> Iterator[None]:
    """A GPU's convolutions of fp32 are TF32 unless forbidden: ten bits, which is no reference.

    Only for the check of an eager fp32 contender: compiled ones would be compiled anew for it.
    """
    before = torch.backends.cudnn.allow_tf32
    forbid = contender.variant.precision == "fp32" and not contender.variant.compiled
    torch.backends.cudnn.allow_tf32 = before and not forbid
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def truth(reference: Contender) -> Truth:
    """The reference's loss and gradients; it should work in fp32."""
    loss, gradients, _ = run_once(reference)
    return Truth(reference.name, loss, gradients)


def check(contender: Contender, against: Truth) -> Check:
    """Compares a contender with the reference: same weights, frames and masks."""
    loss, gradients, kept = run_once(contender)
    allowed = tolerance(contender.variant)
    if set(gradients) != set(against.gradients):
        odd = sorted(set(gradients) ^ set(against.gradients))
        raise UncheckedError(f"{contender.name}: parameters differ: {', '.join(odd[:5])}")
    errors = {
        name: float((value - gradients[name]).norm() / value.norm())
        for name, value in against.gradients.items()
    }
    worst = max(errors, key=lambda name: (errors[name] != errors[name], errors[name]))  # NaN first
    apart = sum(float((v - gradients[k]).square().sum()) for k, v in against.gradients.items())
    size = sum(float(v.square().sum()) for v in against.gradients.values())
    gradient_error = (apart / size) ** 0.5
    loss_error = abs(loss - against.loss) / abs(against.loss)
    return Check(
        contender=contender.name,
        masking=contender.masking,
        reference=against.name,
        loss=loss,
        loss_error=loss_error,
        gradient_error=gradient_error,
        worst=worst,
        worst_error=errors[worst],
        kept_bytes=kept,
        passed=(
            loss_error <= allowed.loss
            and gradient_error <= allowed.all_gradients
            and errors[worst] <= allowed.each_gradient
        ),
    )


class KeptForBackward:
    """Counts what autograd keeps: distinct storages that are no weight and no input."""

    def __init__(self, contender: Contender) -> None:
        given = [*contender.parameters, *contender.model.buffers(), *contender.inputs.values()]
        self._known = {tensor.untyped_storage().data_ptr() for tensor in given}
        self._hooks: AbstractContextManager[Any] = torch.autograd.graph.saved_tensors_hooks(
            self._pack, _same
        )
        self.bytes = 0

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._known:
            self._known.add(storage.data_ptr())  # alive until backward: no other gets its place
            self.bytes += storage.nbytes()
        return tensor

    def __enter__(self) -> None:
        self._hooks.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)


def _same(tensor: Tensor) -> Tensor:
    return tensor
