"""How a contender is built: who there is, by kind, and which options each kind has."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.common.workload import Masking, Workload
from benchmarks.contenders import checkout, hugging_face, official
from benchmarks.contenders.base import Contender, UnavailableError, Variant
from benchmarks.contenders.captured import Captured
from benchmarks.contenders.ours import Ours
from videomae_fast import MaskedAutoencoder
from videomae_fast.models.fp8 import MINIMUM_WIDTH, set_fp8
from videomae_fast.models.transformer import set_recompute


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
    set_recompute(model, variant.recompute)
    set_fp8(model, variant.fp8, minimum_width=min(MINIMUM_WIDTH, workload.config.width))
    model.load_state_dict(workload.state)
    kind = Captured if variant.captured else Ours
    return kind(name, variant, model, workload, masking)


# A new kind of contender is a file with a builder, a line here and a name in Variant.kind.
BUILDERS: dict[str, Callable[[str, Variant, Workload, Masking], Contender]] = {
    "ours": _ours,
    "official": official.build,
    "checkout": checkout.build,
    "hugging-face": hugging_face.build,
}
# What only some kinds have.
OPTIONS: dict[str, tuple[str, ...]] = {
    "captured": ("ours",),
    "shadow_weights": ("ours",),
    "recompute": ("ours",),
    "fp8": ("ours",),
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
    if variant.shadow_weights and variant.precision != "bf16":
        raise ValueError("shadow_weights are bf16 copies: they go with precision bf16")
    if variant.fp8 and variant.precision != "bf16":
        raise ValueError("fp8 takes the place of bf16 in some matmuls: it goes with precision bf16")
    if variant.kind == "checkout" and not variant.checkout:
        raise UnavailableError("it needs a checkout of the official code: --official-checkout")
