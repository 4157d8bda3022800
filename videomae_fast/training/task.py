"""What the engine asks of a task: the two protocols between ``training`` and ``tasks``.

The engine makes steps, saves, resumes, tells and stops. A task brings the data, the model and the
loss of a micro-batch, and what of its own has to be in a checkpoint. What belongs to one step is
the task's :class:`Objective`, which needs no data set and can be stepped by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from videomae_fast.data.failures import Failure
from videomae_fast.data.loader.stats import PipelineStats
from videomae_fast.training.checkpoint import Log, Saved


@dataclass(frozen=True)
class Settings:
    """What the engine has to know of a run's configuration, whatever the task.

    Attributes:
        device: "auto", "cpu" or "cuda".
        videos_per_step: over all processes.
        clips_per_video: samples of each.
        accumulation: micro-batches of a process's part of a step.
        seed: of what is drawn on the device (dropout).
        precision: "auto", "fp32" or "bf16".
        step_mode: "auto", "eager", "compiled" or "captured".
        shadow_weights: matmuls work on bf16 copies of the weights that the update writes.
        deterministic: the same bits in every run.
        clip_grad: largest gradient norm; 0 does not clip.
        log_every, checkpoint_every: in steps.
        keep_checkpoints: the newest ones.
        tensorboard: write its events too.
        max_failed_share: of draws that can't be read, above which the run ends.
        shard: "none", "node", "all", or a number: processes that hold one copy of the states.
        reshard: "auto", "yes" or "no": whether gathered weights are freed after each block.
        prometheus: file for Prometheus's text, or None.
        fp8: some of the model's matmuls are in fp8.
        group_timeout: seconds that processes wait for each other once the first step is done.
        check_replicas_every: steps after which copies of the weights are compared; 0: never.
    """

    device: str
    videos_per_step: int
    clips_per_video: int
    accumulation: int
    seed: int
    precision: str
    step_mode: str
    deterministic: bool
    shadow_weights: bool
    clip_grad: float
    log_every: int
    checkpoint_every: int
    keep_checkpoints: int
    tensorboard: bool
    max_failed_share: float
    shard: str = "none"
    reshard: str = "auto"
    prometheus: str | None = None
    fp8: bool = False
    group_timeout: float = 600.0
    check_replicas_every: int = 0


@dataclass(frozen=True)
class Place:
    """Where in a run a micro-batch is. step: of the run; micro: of the step; rank: the process."""

    step: int
    micro: int
    rank: int


class MicroBatch(Protocol):
    """What the engine looks at in a micro-batch of a process: names of its videos, and failures."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def failures(self) -> Sequence[Failure]: ...


Batch = TypeVar("Batch", bound=MicroBatch)
Taken = TypeVar("Taken", bound=MicroBatch, contravariant=True)


@dataclass(frozen=True)
class MicroLoss:
    """The loss of a micro-batch, all scalars on the device.

    Attributes:
        total: sum of weight x loss; detached.
        weight: sum of the weights. A step's loss is the sum of ``total`` over that of ``weight``,
            over all micro-batches and processes, and the update follows its gradient.
        failed: clips without a part in it, since they could not be read.
        backward: adds the gradient of ``scale * total`` to the parameters'.
        metrics: further sums, as :attr:`Objective.metrics` names them.
    """

    total: Tensor
    weight: Tensor
    failed: Tensor
    backward: Callable[[], None]
    metrics: Sequence[Tensor] = ()


class Objective(Protocol[Taken]):
    """The part of a task that belongs to a step: inputs, loss, and the optimizer of the model.

    Whatever it keeps beside the model, as a distillation's teacher, is its own: the engine neither
    moves nor saves it. A moving average of the weights is an entry of ``optimizer.state`` made by
    a hook on the optimizer's step.
    """

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of numbers that are told with each step: their sums over its weights' sum."""
        ...

    @property
    def draws(self) -> bool:
        """Whether the forward pass draws from torch's generators: they are then seeded by place."""
        ...

    @property
    def weight_per_clip(self) -> float:
        """About what a clip adds to the weight: a constant that keeps the gradient's size right
        before the weights of a step are known."""
        ...

    def matmul_parameters(self, model: nn.Module) -> Collection[str]:
        """Names of the parameters that matmuls alone read, which autocast would cast."""
        ...

    def why_not_captured(self) -> str | None:
        """Why a step of it can't be recorded as one CUDA graph, or None."""
        ...

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """A fused optimizer for a model that is on its device, with its groups and whole state:
        see :func:`~videomae_fast.training.optimizer.make_optimizer`."""
        ...

    def inputs(self, batch: Taken, place: Place) -> Mapping[str, Tensor]:
        """What :meth:`loss` is to get of a micro-batch, on any device; what is drawn on the host
        (as mixup's shares) is drawn here, from the place. Shapes are those of every micro-batch."""
        ...

    def loss(self, model: nn.Module, inputs: Mapping[str, Tensor], *, scale: float) -> MicroLoss:
        """The forward pass. Nothing may be read from the device, so that it can be recorded.

        Args:
            model: the model, or what wraps it.
            inputs: on the model's device.
            scale: what the loss's sum is multiplied with for the backward pass.
        """
        ...


@runtime_checkable
class Timed(Protocol):
    """An objective that knows what a part of its steps costs; no objective has to."""

    def ms_per_step(self, steps: int) -> Mapping[str, float]:
        """Milliseconds of a step by the part's name, in the mean.

        Args:
            steps: made since the last call; the device has finished them.
        """
        ...


@dataclass(frozen=True)
class Work:
    """Multiply-adds of a clip's forward pass.

    official: of the official computation; computed: of ours; again: backward makes it again.
    """

    official: float
    computed: float
    again: bool


@runtime_checkable
class Counted(Protocol):
    """An objective that knows how much its steps compute; no objective has to."""

    def work(self) -> Work: ...


@runtime_checkable
class DrawnByPlace(Protocol):
    """An objective of which something is drawn for a micro-batch of a process, not for a clip: it
    changes where a run goes on in other processes or micro-batches. No objective has to be one."""

    def drawn_by_place(self) -> Sequence[str]:
        """What that is, in words; nothing where the settings leave it out."""
        ...


@dataclass(frozen=True)
class Fingerprint:
    """What makes a run the one that wrote a checkpoint.

    Attributes:
        values: plain values by name, compared one by one.
        free: names that may differ when a run goes on.
        total_steps: the run's length.
    """

    values: Mapping[str, Any]
    free: frozenset[str]
    total_steps: int


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation after an epoch found.

    Attributes:
        numbers: by name, for TensorBoard.
        stop: the run is to end here, since it does not become better.
    """

    numbers: Mapping[str, float]
    stop: bool = False


class Task(Protocol[Batch]):
    """A kind of training: data, model and what is said of them in a run's folder."""

    @property
    def name(self) -> str:
        """TensorBoard's prefix."""
        ...

    @property
    def activity(self) -> str:
        """What the process does, for one that finds the folder taken: "pre-trains"."""
        ...

    @property
    def settings(self) -> Settings: ...

    @property
    def objective(self) -> Objective[Batch]: ...

    @property
    def feeding(self) -> PipelineStats:
        """Counts what the stages of the data pipeline do."""
        ...

    @property
    def steps_per_epoch(self) -> int: ...

    @property
    def fingerprint(self) -> Fingerprint: ...

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration as plain values, for ``config.json`` and checkpoints."""
        ...

    @property
    def data(self) -> Mapping[str, Any]:
        """What the run read of its data, as plain values; a run that goes on must read the same."""
        ...

    def learning_rate(self, step: int) -> float: ...

    def weight_decay(self, step: int) -> float:
        """Of the optimizer's groups that decay."""
        ...

    def describe(self) -> str:
        """The data, for the log."""
        ...

    def batches(self, start_step: int) -> Iterator[Batch]:
        """This process's micro-batches from a step on."""
        ...

    def model(self) -> nn.Module:
        """On the CPU, with weights drawn from the seed: the same on every process and device."""
        ...

    def shape(self, model: nn.Module) -> Mapping[str, Any]:
        """``model`` and ``model_options`` of a checkpoint: what builds the model again. Also
        ``kind``, where it is no masked autoencoder, and a classifier's ``labels``."""
        ...

    def begin(self, model: nn.Module, log: Log) -> dict[str, Any] | None:
        """Before step 0, in the main process: loads weights where the run begins from some.

        Returns:
            A record of them for the checkpoints.
        """
        ...

    def began(self, saved: Saved) -> dict[str, Any] | None:
        """The record in a checkpoint; raises CheckpointError for one of another beginning."""
        ...

    def fingerprint_of(self, saved: Saved) -> Fingerprint:
        """That of the run that wrote a checkpoint; CheckpointError where it can't be read."""
        ...

    def epoch_done(self, done: int, model: nn.Module, log: Log) -> Evaluated | None:
        """Called on every process when ``done`` steps end an epoch or the run: to evaluate.

        Also before the first step of a run that goes on from such a place, whose evaluation may
        have been stopped: a task knows what it has evaluated.
        """
        ...
