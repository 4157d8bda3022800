"""Ours as a contender: the library's model in a step like that of its training loop."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common.workload import Masking, Workload
from benchmarks.contenders.base import Contender, Variant
from videomae_fast import Masks
from videomae_fast.models.masked_autoencoder import MAEOutput
from videomae_fast.models.matmul_parameters import matmul_parameters
from videomae_fast.ops.registry import forced
from videomae_fast.training.optimizer.shadows import Shadows
from videomae_fast.training.optimizer.update import make_update


class FromSeeds(Contender):
    """Fed with uint8 clips and one mask seed per clip."""

    def prepare(self) -> Mapping[str, Tensor]:
        return {"frames": self.workload.frames, "seeds": self.workload.mask_seeds}

    def masks(self) -> Masks:
        """Made on the device."""
        spec, grid = self.workload.spec(self.masking), self.workload.config.grid
        return Masks.from_seeds(self.input("seeds"), grid, spec)


class Ours(FromSeeds):
    """The library's model in a step like that of its training loop.

    The loss comes with its gradient, scaled by the static number of tokens, and the update brings
    that to the mean: see :class:`videomae_fast.training.step.TrainStep`.
    """

    def __init__(
        self, name: str, variant: Variant, model: nn.Module, workload: Workload, masking: Masking
    ) -> None:
        super().__init__(name, variant, model, workload, masking)
        tokens = workload.spec(masking).counts(workload.config.grid).loss
        self._tokens = float(workload.batch * tokens)
        self._output: MAEOutput | None = None
        self._shadows: Shadows | None = None
        if variant.shadow_weights:
            self._shadows = Shadows(self.model, matmul_parameters(self.model))
        self._update = make_update(self.optimizer, self._shadows)
        self._to_mean = self._loss_sum = torch.ones((), device=self.device)

    def prepare(self) -> Mapping[str, Tensor]:
        every_clip = torch.ones(self.workload.batch, dtype=torch.bool)
        return {**super().prepare(), "ok": every_clip}  # which clips a loader could read

    def loss(self) -> Tensor:
        with self.backends():
            masks = self.masks().weighted(self.input("ok"))
            with self.mixed():
                out: MAEOutput = self.call(
                    self.input("frames"), masks, gradient_scale=1 / self._tokens
                )
        self._output, self._loss_sum = out, out.loss_sum
        self._to_mean = self._tokens / out.loss_weight
        return out.loss

    def backward(self, loss: Tensor) -> None:
        """From the gradient that :meth:`loss` computed last."""
        assert self._output is not None, "backward follows loss"
        output, self._output = self._output, None
        self.clear()
        with self.backends():
            output.backward()

    def gradients(self) -> dict[str, Tensor]:
        return {name: value * self._to_mean for name, value in super().gradients().items()}

    def clear(self) -> None:
        """Forgets all gradients: those of weights, and of the copies that the model works on."""
        self.optimizer.zero_grad()
        self.model.zero_grad()

    def whole_weights(self) -> AbstractContextManager[None]:
        """While entered the model holds the weights that are trained, and no copies."""
        return nullcontext() if self._shadows is None else self._shadows.away()

    def update(self) -> None:
        norm = self._update.norm(self._update.gradients()) * self._to_mean
        bad = ~(self._loss_sum.isfinite() & norm.isfinite())
        self._update.apply(1 / self._to_mean, bad.float())

    def backends(self) -> Any:
        """The variant's choice for the ops; an op decides in each direction when it is called."""
        if self.variant.backend == "auto" and not self.variant.op_backends:
            return nullcontext()
        return forced(self.variant.backend, **self.variant.op_backends)
