"""One optimizer step, from micro-batches to new weights, without reading from the device."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Generic

import torch
from torch import Tensor, nn

from videomae_fast.errors import UsageError
from videomae_fast.seeding import seed_generators
from videomae_fast.training.optimizer.adamw import set_learning_rate
from videomae_fast.training.optimizer.shadows import Shadows
from videomae_fast.training.optimizer.update import make_update
from videomae_fast.training.parallel.ddp import replicate, spread, without_sync
from videomae_fast.training.parallel.fsdp import shard, whole, without_scatter
from videomae_fast.training.parallel.layout import Layout
from videomae_fast.training.parallel.world import World, videos_per_micro_batch
from videomae_fast.training.per_rank import Stopwatch
from videomae_fast.training.task import Batch, Objective, Place, Settings


def columns(objective: Objective[Batch]) -> tuple[str, ...]:
    """What a step reports: over all processes, in this order."""
    sums = ("loss_sum", "loss_weight", "failed_clips", *objective.metrics)
    return (*sums, "grad_norm", "non_finite")


class TrainStep(Generic[Batch]):
    """Model, optimizer, and what one step does with them.

    The gradient is that of the mean over **all** weights in the loss of the global step: a token
    counts the same whichever micro-batch or process it is in, also where their numbers differ
    (random decoder masks, clips that could not be read, flat cubes). Backward runs on the loss
    sum over a static weight; what that is off by is known on the device after the step's
    sums are added up, and goes to fused AdamW as its ``grad_scale``, together with the clip
    coefficient. ``found_inf`` makes the update leave everything as it is: from the first step with
    a non-finite loss or gradient on, so that the weights stay those before it until the host looks.

    Args:
        objective: the task's part of a step.
        model: on the CPU, weights loaded in the main process, which the others get; where it is to
            be sharded, theirs may be on meta.
        compiled: the model under ``torch.compile``; a sharded one block by block.
        layout: where its states lie.
    """

    def __init__(
        self,
        objective: Objective[Batch],
        model: nn.Module,
        settings: Settings,
        world: World,
        *,
        compiled: bool = False,
        layout: Layout = Layout(),  # noqa: B008  (frozen)
    ) -> None:
        self.layout = layout
        self.objective, self.settings, self.world = objective, settings, world
        self.device = world.device
        bf16 = uses_bf16(settings, self.device)
        self.autocast = bf16 and not layout.sharded  # which casts weights when it gathers them
        if layout.sharded:
            shard(model, layout, world, bf16=bf16, compiled=compiled)
            self.model = model.train()
        else:
            self.model = model.to(self.device).train()
            spread(self.model.state_dict().values(), world)
        self.optimizer = objective.optimizer(self.model)
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._shadows: Shadows | None = None
        if settings.shadow_weights:
            self._shadows = Shadows(self.model, objective.matmul_parameters(self.model))
        self._update = make_update(self.optimizer, self._shadows)
        if compiled and not layout.sharded:
            self.model.compile()  # in place: keys keep their names
        self.replica = self.model if layout.sharded else replicate(self.model, world)
        self.columns = columns(objective)
        videos = videos_per_micro_batch(settings.videos_per_step, world.size, settings.accumulation)
        clips = videos * settings.clips_per_video * settings.accumulation
        # Of all processes: places without a video, which are no failed clips
        self._empty = clips * world.size - settings.videos_per_step * settings.clips_per_video
        self.weight = float(clips * objective.weight_per_clip)
        sums = 3 + len(objective.metrics)
        self._sums = torch.zeros(sums, dtype=torch.float64, device=self.device)
        self._non_finite = torch.zeros((), dtype=torch.float32, device=self.device)
        self._own_fault = torch.zeros((), dtype=torch.bool, device=self.device)
        self.forward_time = Stopwatch(self.device, active=world.size > 1)

    def whole_weights(self) -> AbstractContextManager[None]:
        """While entered the model's parameters are those that are trained and saved: where its
        matmuls work on copies, these are put away."""
        return nullcontext() if self._shadows is None else self._shadows.away()

    def forward_backward(self, batch: Batch, *, step: int, micro: int) -> None:
        """Adds a micro-batch's gradient; its losses stay on the device."""
        place = Place(step, micro, self.world.rank)
        if self.objective.draws:  # nothing else draws from torch's generators
            seed_generators(self.device, seed_of(self.settings.seed, place))
        inputs = {
            name: tensor.to(self.device, non_blocking=True)
            for name, tensor in self.objective.inputs(batch, place).items()
        }
        self._add_gradient(inputs, micro)

    @property
    def own_fault(self) -> bool:
        """Whether this process's own loss was not finite in the first step that was not."""
        return bool(self._own_fault)

    def update(self, learning_rate: float) -> Tensor:
        """Updates the weights from the gradients.

        Returns:
            fp64 [columns] on the device: the numbers of :attr:`columns` for this step.
        """
        set_learning_rate(self.optimizer, learning_rate)
        return self._apply_gradient()

    def _without_gradient(self) -> str:
        names = [n for n, p in self.model.named_parameters() if p.requires_grad and p.grad is None]
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        return (
            f"backward gave {len(names)} trained parameters no gradient: "
            f"{', '.join(names[:5])}{more}. Freeze what the loss does not depend on; else "
            "what wraps the model lost it"
        )

    def _add_gradient(self, inputs: Mapping[str, Tensor], micro: int) -> None:
        """A micro-batch's forward and backward pass, from inputs on the device."""
        last = micro == self.settings.accumulation - 1
        without_scatter(self.model, not last, self.layout)
        with without_sync(self.replica, not last):
            autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast)
            with autocast, self.forward_time:
                loss = self.objective.loss(self.replica, inputs, scale=1 / self.weight)
            loss.backward()
        with torch.no_grad():
            sums = (loss.total, loss.weight, loss.failed, *loss.metrics)
            self._sums += torch.stack([each.double() for each in sums])

    @torch.no_grad()
    def _apply_gradient(self) -> Tensor:
        """The update by the learning rates that the optimizer has. What goes from one step to the
        next keeps its place, so that a recorded step can go on from it."""
        if self.world.size > 1:  # all that follows is the same everywhere
            first = self._non_finite == 0
            self._own_fault = torch.where(first, ~self._sums[0].isfinite(), self._own_fault)
        sums = self.world.add_up(self._sums)
        sums[2] -= self._empty
        loss_sum, weight = sums[0], sums[1]
        # From the gradient that backward left to the one of the mean over all weights
        to_mean = self.weight * self.world.size / weight
        gradients = self._update.gradients()
        if len(gradients) < len(self._parameters):
            raise UsageError(self._without_gradient())
        norm = whole(self._update.norm(gradients)) * to_mean
        empty = weight == 0  # not one clip could be read: no update
        bad = ~(loss_sum.isfinite() & norm.isfinite()) & ~empty
        torch.maximum(self._non_finite, bad.float(), out=self._non_finite)

        scale = 1 / to_mean
        if self.settings.clip_grad > 0:
            scale = scale / (self.settings.clip_grad / (norm + 1e-6)).clamp(max=1)
        self._update.apply(scale.float(), torch.maximum(self._non_finite, empty.float()))

        row = torch.cat([sums, norm[None].double(), self._non_finite[None].double()])
        self._sums.zero_()
        return row


def uses_bf16(settings: Settings, device: torch.device) -> bool:
    """Whether a run's matmuls are in bf16."""
    return {"fp32": False, "bf16": True, "auto": device.type == "cuda"}[settings.precision]


def seed_of(seed: int, place: Place) -> int:
    """The seed of a micro-batch out of the run's and its place (FNV-1a over them, 63 bits)."""
    mixed = 0xCBF29CE484222325
    for number in (seed, place.step, place.micro, place.rank):
        for byte in number.to_bytes(8, "little"):
            mixed = (mixed ^ byte) * 0x100000001B3 % 2**64
    return mixed >> 1
