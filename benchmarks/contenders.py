"""What is compared: ours and the baselines, each as a training step in three phases.

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

from benchmarks.official import AttentionKind, OfficialPretraining, Tables
from benchmarks.official_step import (
    check_finite,
    gradient_norm,
    normalized_images,
    parameter_groups,
    pretraining_loss,
)
from benchmarks.savings import Saving, SavingPretraining, saving_loss
from benchmarks.workload import Masking, Workload
from videomae_fast import MaskedAutoencoder
from videomae_fast.training.optimizer import make_optimizer

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
        savings: work that the official computation leaves out: see :mod:`benchmarks.savings`.
        backend: of every op of ours, "auto" as it comes.
        op_backends: of single ops of ours, by name.
        checkout: folder of the official code, of kind "checkout".
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
    accelerated: Accelerated = "no"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Variant:
        """The inverse of :meth:`to_dict`, through JSON too."""
        return Variant(**{**values, "savings": tuple(values["savings"])})


class Contender(ABC):
    """A model with its optimizer and inputs, for one masking.

    `loss` has a graph; `step` times the phases of a whole step only where the caller asks.
    """

    def __init__(
        self, name: str, variant: Variant, model: nn.Module, workload: Workload, masking: Masking
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
        loss = self.loss()
        if not self.variant.lean:
            check_finite(loss)
        return loss

    def backward(self, loss: Tensor) -> None:
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
        return list(self.model.parameters())

    def input(self, name: str) -> Tensor:
        return self.inputs[name].to(self.device, non_blocking=True)

    def mixed(self) -> Any:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.autocast)

    def _placed(self, value: Tensor) -> Tensor:
        if not self.variant.from_host:
            return value.to(self.device)
        return value.pin_memory() if self.device.type == "cuda" else value

    def _optimizer(self) -> torch.optim.Optimizer:
        if self.variant.lean:
            optimizer = make_optimizer(
                self.model, weight_decay=WEIGHT_DECAY, betas=BETAS, exempt={"mask_token"}
            )
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE
            return optimizer
        groups = parameter_groups(self.model, WEIGHT_DECAY)
        return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS)


class Official(Contender):
    """The transcription or a checkout, fed with normalised clips and boolean masks."""

    def predict(self, images: Tensor, encoder_mask: Tensor, decoder_mask: Tensor) -> Tensor:
        out: Tensor = self.call(images, encoder_mask, decoder_mask)
        return out

    def prepare(self) -> Mapping[str, Tensor]:
        encoder_mask, decoder_mask = self.workload.masks(self.masking).to_bool()
        images = normalized_images(self.workload.frames)
        return {"images": images, "encoder_mask": encoder_mask, "decoder_mask": decoder_mask}

    def loss(self) -> Tensor:
        config, savings = self.workload.config, self.variant.savings
        batch = [self.input(name) for name in ("images", "encoder_mask", "decoder_mask")]
        tubelet, patch = config.tubelet_size, config.patch_size
        if savings:
            return saving_loss(
                self.predict, savings, *batch, tubelet=tubelet, patch=patch, autocast=self.autocast
            )
        return pretraining_loss(
            self.predict, *batch, tubelet=tubelet, patch=patch, autocast=self.autocast
        )


def build(name: str, variant: Variant, workload: Workload, masking: Masking) -> Contender:
    """A contender with the workload's weights.

    Raises:
        ModuleNotFoundError: Hugging Face's transformers is not installed.
        UnavailableError: it can't do this masking, or not here.
        ValueError: an option that this kind does not have.
    """
    _check(variant)
    return BUILDERS[variant.kind](name, variant, workload, masking)


def _ours(name: str, variant: Variant, workload: Workload, masking: Masking) -> Contender:
    with torch.device(workload.device):  # where ViT-g's first weights, soon replaced, take no time
        model = MaskedAutoencoder(workload.config, activation_checkpointing=variant.checkpointing)
    model.load_state_dict(workload.state)
    if variant.captured:
        from benchmarks.captured import Captured

        return Captured(name, variant, model, workload, masking)
    from benchmarks.ours import Ours

    return Ours(name, variant, model, workload, masking)


def _official(name: str, variant: Variant, workload: Workload, masking: Masking) -> Contender:
    tables, attention = variant.tables, variant.attention
    model: OfficialPretraining
    with torch.device(workload.device):
        if variant.savings:
            model = SavingPretraining(
                workload.config, variant.savings, tables=tables, attention=attention
            )
        else:
            model = OfficialPretraining(
                workload.config,
                tables=tables,
                attention=attention,
                checkpointing=variant.checkpointing,
            )
    model.load_state_dict(workload.state)
    return Official(name, variant, model, workload, masking)


def _checkout(name: str, variant: Variant, workload: Workload, masking: Masking) -> Contender:
    from benchmarks.checkout import build as build_checkout

    return build_checkout(name, variant, workload, masking)


def _hugging_face(name: str, variant: Variant, workload: Workload, masking: Masking) -> Contender:
    from benchmarks.hugging_face import build as build_hugging_face

    return build_hugging_face(name, variant, workload, masking)


# A new kind of contender is a line here and a name in Variant.kind.
BUILDERS: dict[str, Callable[[str, Variant, Workload, Masking], Contender]] = {
    "ours": _ours,
    "official": _official,
    "checkout": _checkout,
    "hugging-face": _hugging_face,
}
# What only some kinds have.
OPTIONS: dict[str, tuple[str, ...]] = {
    "captured": ("ours",),
    "savings": ("official",),
    "op_backends": ("ours",),
    "backend": ("ours",),
    "attention": ("official",),
    "checkout": ("checkout",),
    "checkpointing": ("ours", "official", "checkout"),
    "accelerated": ("checkout", "hugging-face"),
}


def _check(variant: Variant) -> None:
    plain = Variant(variant.kind).to_dict()
    for name, kinds in OPTIONS.items():
        if variant.to_dict()[name] != plain[name] and variant.kind not in kinds:
            raise ValueError(f"{name} is an option of {', '.join(kinds)}, not of {variant.kind}")
    if variant.savings and variant.checkpointing:
        raise ValueError("savings are not combined with activation checkpointing")
    if variant.kind == "ours" and (variant.precision == "fp16" or not variant.lean):
        raise ValueError("ours is lean, in fp32 or bf16, as the library's training loop is")
    if variant.kind == "checkout" and not variant.checkout:
        raise UnavailableError("it needs a checkout of the official code: --official-checkout")


def tables_to_device(model: nn.Module, name: str) -> None:
    """Repairs position tables that are plain tensors, in place: they become buffers, and move."""
    for module in model.modules():
        table = module.__dict__.get(name)
        if isinstance(table, Tensor):
            delattr(module, name)
            module.register_buffer(name, table, persistent=False)
