"""A step that is launched as one: from the masks to the update, recorded once and replayed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from videomae_fast.errors import BackendUnavailableError, UsageError
from videomae_fast.training.checkpoint import Log
from videomae_fast.training.graph import Recorder, Replay
from videomae_fast.training.optimizer.adamw import rates_to_device, set_learning_rate
from videomae_fast.training.parallel.world import World
from videomae_fast.training.step import TrainStep, seed_of
from videomae_fast.training.task import Batch, Objective, Place, Settings


class CapturedStep(TrainStep[Batch]):
    """The whole step as one replay: :meth:`forward_backward` only puts its inputs in their places.

    What a replay reads lies in tensors that stay where they are: the inputs of every micro-batch,
    the learning rates, and what a step hands to the next one. It is recorded at the first update,
    when all inputs are there; the runs before the recording change nothing, since they take
    themselves for steps after one that was not finite.

    Args:
        recorder: of as many generators as a step has micro-batches.
        otherwise: is told why a step can't be recorded, and steps are launched kernel by kernel
            then, with the same draws; None: that is an error.
    """

    def __init__(
        self,
        objective: Objective[Batch],
        model: nn.Module,
        settings: Settings,
        world: World,
        recorder: Recorder,
        otherwise: Log | None = None,
    ) -> None:
        super().__init__(objective, model, settings, world)
        self._recorder, self._otherwise = recorder, otherwise
        self._inputs: list[dict[str, Tensor]] = [{} for _ in range(settings.accumulation)]
        self._row = torch.zeros(len(self.columns), dtype=torch.float64, device=self.device)
        self._replay: Replay | None = None
        rates_to_device(self.optimizer, self.device)

    def forward_backward(self, batch: Batch, *, step: int, micro: int) -> None:
        """Takes a micro-batch; its gradient is made with the update.

        Raises:
            UsageError: its inputs have other shapes than those of the recorded step.
        """
        place = Place(step, micro, self.world.rank)
        if self.objective.draws:
            self._recorder.seed(micro, seed_of(self.settings.seed, place))
        inputs, own = self.objective.inputs(batch, place), self._inputs[micro]
        if self._replay is None:
            for name, tensor in inputs.items():
                own[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device=self.device)
        for name, tensor in inputs.items():
            if own[name].shape != tensor.shape or own[name].dtype != tensor.dtype:
                raise UsageError(
                    f"step_mode captured needs inputs of one shape: {name} was "
                    f"{list(own[name].shape)} and is {list(tensor.shape)} in step {step}; use "
                    "step_mode eager"
                )
            own[name].copy_(tensor, non_blocking=True)

    def update(self, learning_rate: float) -> Tensor:
        """Makes the step.

        Returns:
            As :meth:`TrainStep.update`.
        """
        set_learning_rate(self.optimizer, learning_rate)
        if self._replay is None:
            self._replay = self._record()
        self._replay()
        return self._row.clone()

    def _record(self) -> Replay:
        """
        Raises:
            BackendUnavailableError: the step can't be recorded.
        """
        self._non_finite.fill_(1)  # updates leave weights, moments and averages as they are
        try:
            return self._recorder.record(self._whole, self._forget)
        except BackendUnavailableError as error:
            if self._otherwise is None:
                raise
            self._otherwise(f"step mode eager from here on: {error}")
            self._forget()
            return self._whole
        finally:
            self._non_finite.zero_()
            self._sums.zero_()

    def _whole(self) -> None:
        for micro, inputs in enumerate(self._inputs):
            if self.objective.draws:
                self._recorder.draw_from(micro)
            self._add_gradient(inputs, micro)
        self._row.copy_(self._apply_gradient())

    def _forget(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.model.zero_grad(set_to_none=True)  # its copies of weights, where it has some
