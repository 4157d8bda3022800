"""Ours as one CUDA graph: masks, forward, backward, gradient norm and AdamW, launched at once.

Every shape of a step is static and nothing is read back, so the whole of it can be recorded and
replayed; what is gained is the time that the host needs to launch kernels.

On the CPU the order of things around the graph is tested with a stand-in.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.common.workload import Masking, Workload
from benchmarks.contenders.base import LEARNING_RATE, Contender, UnavailableError, Variant
from benchmarks.contenders.ours import Ours
from videomae_fast.training.graph import CudaRecorder


def why_not(device: torch.device) -> str | None:
    """Why a step can't be captured, or None."""
    return None if device.type == "cuda" else f"a CUDA graph needs a CUDA device, not {device}"


def capture(
    run: Callable[[], None], clear: Callable[[], None], device: torch.device
) -> tuple[Callable[[], None], float]:
    """Records what `run` launches as training does (:class:`CudaRecorder`); `clear` frees what the
    runs before that left.

    Returns:
        What replays it, and the bytes that it needed above what lay on the GPU before.
    """
    recorder = CudaRecorder(device)
    return recorder.record(run, clear), recorder.peak


class Captured(Ours):
    """The step is one replay: `forward` does all of it, `backward` and `update` nothing.

    Raises:
        UnavailableError: a graph can't be captured here, with the reason.
    """

    def __init__(
        self, name: str, variant: Variant, model: nn.Module, workload: Workload, masking: Masking
    ) -> None:
        reason = why_not(torch.device(workload.device))
        if reason is not None:
            raise UnavailableError(reason)
        super().__init__(name, variant, model, workload, masking)
        for group in self.optimizer.param_groups:
            # On the device, as a schedule would change it between replays.
            group["lr"] = torch.tensor(LEARNING_RATE, device=self.device)
            group["capturable"] = True
        self._loss = torch.zeros((), device=self.device)
        self._gradients: dict[str, Tensor] = {}
        self._replay, self._peak = capture(self._whole_step, self._forget, self.device)
        self._restore()

    def _whole_step(self) -> None:
        self.clear()
        loss = super().loss()
        super().backward(loss)
        # Alive: no later kernel of the graph gets their place. The update brings them to the mean.
        self._gradients = Contender.gradients(self)
        super().update()
        self._loss = loss.detach()

    def _forget(self) -> None:
        self.clear()
        self._gradients = {}

    def _restore(self) -> None:
        """The first weights and an empty optimizer, in place: a graph knows addresses."""
        with self.whole_weights():
            self.model.load_state_dict(self.workload.state)
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()

    def loss(self) -> Tensor:
        """For checks: what the graph computes with the first weights, which are put back."""
        self._replay()
        loss = self._loss.clone()
        self._restore()
        return loss

    def gradients(self) -> dict[str, Tensor]:
        return self._gradients

    def forward(self) -> Tensor:
        self._replay()
        return self._loss

    def backward(self, loss: Tensor) -> None:
        """Part of the replay."""

    def update(self) -> None:
        """Part of the replay."""

    def step_peak(self) -> float:
        return self._peak
