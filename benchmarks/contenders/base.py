"""The contract of what is compared: a training step in three phases.

What a data loader's workers prepare is ready before the clock starts: normalised fp32 clips and
boolean masks for the official computation, uint8 clips and one seed per clip for ours. So ours
normalises and makes its masks inside the timed step, the official computation does not. Other
code under :func:`videomae_fast.accelerate` is fed as it was, or as ours: ``Variant.accelerated``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.common.workload import Masking, Mixing, Workload
from benchmarks.official.model import AttentionKind, Tables
from benchmarks.official.savings import Saving
from benchmarks.official.step import check_finite, gradient_norm, parameter_groups
from videomae_fast.training import optimizer as adamw

Precision = Literal["fp32", "bf16", "fp16"]
Accelerated = Literal["no", "two lines", "all lines"]
AUTOCAST: dict[Precision, torch.dtype | None] = {
    "fp32": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.05
# Small, so that the weights stay near those that were checked.
LEARNING_RATE = 1e-6


class UnavailableError(RuntimeError):
    """A contender that can't be here: on this device, with this masking, at this shape."""


@dataclass(frozen=True)
class Variant:
    """How a contender is built.

    Attributes:
        kind: "ours", "official" (the transcription), "checkout" (the official code itself) or
            "hugging-face".
        tables: position tables of the baselines, "as-shipped" on the host or "repaired".
        attention: of the official computation.
        precision: of the matmuls; fp16 uses a gradient scaler, as the official code does.
        compiled: under ``torch.compile``.
        captured: the whole step as one CUDA graph; ours only.
        from_host: inputs are copied from (pinned) host memory each step.
        lean: fused AdamW and no reading of the loss, as ours; otherwise AdamW's default, and the
            loss is read each step, as shipped.
        checkpointing: activation checkpointing.
        recompute: norms and GELU of ours are made again in backward instead of kept.
        savings: work that the official computation leaves out: see
            :mod:`benchmarks.official.savings`.
        backend: of every op of ours, "auto" as it comes.
        op_backends: of single ops of ours, by name.
        checkout: folder of the official code, of kind "checkout".
        shadow_weights: matmuls of ours work on bf16 copies of weights that the update writes.
        fp8: qkv, fc1 and fc2 of ours' wide blocks are in fp8 (of a tiny model its widest).
        accelerated: other code's model under ``accelerate``: in "two lines" (the import and the
            call), all else as it was; in "all lines" also fed with uint8 frames and Masks made on
            the device, and the official code with ``masked_pixel_loss`` in place of its targets.
    """

    kind: Literal["ours", "official", "checkout", "hugging-face"]
    tables: Tables = "as-shipped"
    attention: AttentionKind = "eager"
    precision: Precision = "fp32"
    compiled: bool = False
    captured: bool = False
    from_host: bool = False
    lean: bool = False
    checkpointing: bool = False
    savings: tuple[Saving, ...] = ()
    backend: str = "auto"
    op_backends: Mapping[str, str] = field(default_factory=dict)
    checkout: str = ""
    shadow_weights: bool = False
    recompute: bool = False
    fp8: bool = False
    accelerated: Accelerated = "no"

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Variant:
        """The inverse of :meth:`to_dict`, through JSON too."""
        return Variant(**{**values, "savings": tuple(values["savings"])})


class Contender(ABC):
    """A model with its optimizer and inputs, for one masking (in fine-tuning: one mixing).

    `loss` has a graph; `step` times the phases of a whole step only where the caller asks.
    """

    def __init__(
        self,
        name: str,
        variant: Variant,
        model: nn.Module,
        workload: Workload,
        masking: Masking | Mixing,
    ) -> None:
        self.name, self.variant, self.workload, self.masking = name, variant, workload, masking
        self.device = torch.device(workload.device)
        self.model = model.to(self.device).train()
        # Static: contenders of other shapes, of the same class, must not make this one's dynamic.
        self.call: Callable[..., Any] = (
            torch.compile(model, dynamic=False) if variant.compiled else model
        )
        self.autocast = AUTOCAST[variant.precision]
        self.optimizer = self._optimizer()
        scaled = variant.precision == "fp16"
        self.scale = 1024.0 if scaled else 1.0
        # Starts where no gradient overflows: a skipped update would be a cheaper step.
        self.scaler = torch.amp.GradScaler(self.device.type, init_scale=self.scale, enabled=scaled)
        self.inputs = {name: self._placed(value) for name, value in self.prepare().items()}

    @abstractmethod
    def prepare(self) -> Mapping[str, Tensor]:
        """What a data loader hands over, on the CPU."""

    @abstractmethod
    def loss(self) -> Tensor:
        """Scalar loss of the batch; :meth:`backward` starts from it."""

    def gradients(self) -> dict[str, Tensor]:
        """Gradients by official parameter name, of the last backward pass."""
        found = {}
        for name, parameter in self.model.named_parameters():
            assert parameter.grad is not None, f"{name} got no gradient"
            found[name] = parameter.grad
        return found

    def forward(self) -> Tensor:
        """The loss; as shipped, it is also read by the host."""
        loss = self.loss()
        if not self.variant.lean:
            check_finite(loss)
        return loss

    def backward(self, loss: Tensor) -> None:
        """Gradients of the loss, scaled in fp16."""
        self.optimizer.zero_grad()
        torch.autograd.backward(self.scaler.scale(loss))

    def step_peak(self) -> float:
        """Bytes that a training step needs on the GPU above weights, gradients (of the step before
        it), optimizer and inputs.
        """
        torch.cuda.synchronize(self.device)
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        self.backward(self.forward())
        self.update()
        torch.cuda.synchronize(self.device)
        return float(torch.cuda.max_memory_allocated(self.device) - before)

    def update(self) -> None:
        """Gradient norm and AdamW: the official step computes the norm in any case."""
        self.scaler.unscale_(self.optimizer)
        if self.variant.lean:
            torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        else:
            gradient_norm(self.model)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Of the model."""
        return list(self.model.parameters())

    def input(self, name: str) -> Tensor:
        """What :meth:`prepare` gave under this name, on the device."""
        return self.inputs[name].to(self.device, non_blocking=True)

    def mixed(self) -> Any:
        """A context in which matmuls have the precision of the variant."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.autocast)

    def _placed(self, value: Tensor) -> Tensor:
        if not self.variant.from_host:
            return value.to(self.device)
        return value.pin_memory() if self.device.type == "cuda" else value

    def _optimizer(self) -> torch.optim.Optimizer:
        if self.variant.lean:
            decayed = adamw.parameter_groups(self.model, WEIGHT_DECAY, {"mask_token"})
            optimizer = adamw.make_optimizer(decayed, betas=BETAS)
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE
            return optimizer
        groups = parameter_groups(self.model, WEIGHT_DECAY)
        return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS)


def tables_to_device(model: nn.Module, name: str) -> None:
    """Repairs position tables that are plain tensors, in place: they become buffers, and move."""
    for module in model.modules():
        table = module.__dict__.get(name)
        if isinstance(table, Tensor):
            delattr(module, name)
            module.register_buffer(name, table, persistent=False)
