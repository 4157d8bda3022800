"""Which modules of a model are given another form: those whose own code is known."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

from torch import nn

from videomae_fast.interop.acceleration.code import NAMES, accept, why_unknown
from videomae_fast.interop.acceleration.retype import is_form

_BLOCK = "LayerNorm with residual, attention, bias with GELU: this library's ops"
_STACK = "runs its blocks as one stack, the last one for the predicted tokens only"
_EMBEDS = "only visible tokens are embedded; positions on the device"


class Role(NamedTuple):
    """A known class of other code.

    Attributes:
        form: "module.Class" of the form that takes its place.
        what: what is computed differently then.
        blocks: "module.NAME" of the kind of block that this is, or None.
        model: what a model of this class is called, where it is a whole one.
    """

    form: str
    what: str
    blocks: str | None = None
    model: str | None = None


_OFFICIAL = "official_blocks.OFFICIAL"
ROLES = {
    "PretrainVisionTransformer": Role(
        "official.PretrainingForm",
        "masks as indices, one pass of assembly",
        model="the official pre-training model",
    ),
    "PretrainVisionTransformerEncoder": Role("official.EncoderForm", _EMBEDS),
    "PretrainVisionTransformerDecoder": Role("official.DecoderForm", _STACK),
    "VisionTransformer": Role(
        "official.ClassifierForm",
        "embedding as a matmul, positions on the device, blocks as one stack",
        model="the official classifier",
    ),
    "Block": Role("official.BlockForm", _BLOCK, _OFFICIAL),
    "CheckpointedBlock": Role("official.BlockForm", _BLOCK, _OFFICIAL),
    "AdapterBlock": Role("official.BlockForm", _BLOCK, _OFFICIAL),
    "VideoMAEForPreTraining": Role(
        "hugging_face.PretrainingForm",
        "masks as indices, one pass of assembly, targets for the decoded tokens only",
        model="Hugging Face's VideoMAEForPreTraining",
    ),
    "VideoMAEEmbeddings": Role("hugging_face.EmbeddingsForm", _EMBEDS),
    "VideoMAEEncoder": Role("hugging_face.EncoderForm", "runs its layers as one stack"),
    "VideoMAEDecoder": Role("hugging_face.DecoderForm", _STACK),
    "VideoMAELayer": Role(
        "hugging_face.LayerForm", _BLOCK, "hugging_face_blocks.HUGGING_FACE"
    ),
}  # fmt: skip
# (class that a model can have, part, why it stays as it was)
_STAYS = (
    ("PretrainVisionTransformer", "encoder.norm, decoder.norm", "part of the last block's pass"),
    (
        "PretrainVisionTransformer",
        "the loss",
        "it is in the training loop: masked_pixel_loss(prediction, frames, masks) replaces it",
    ),
    ("VisionTransformer", "fc_norm, head", "one row per clip: nothing to gain"),
    (
        "VideoMAEForPreTraining",
        "loss of float clips",
        "with uint8 frames [B, T, H, W, 3] it is one fused pass",
    ),
    ("VideoMAEForVideoClassification", "fc_norm, classifier", "one row per clip: nothing to gain"),
)


@dataclass(frozen=True)
class Step:
    """One module that gets another form.

    Attributes:
        path: of the module, as in ``named_modules``; "" is the model.
        module: the module.
        role: the known class whose code it runs.
        form: whose methods go before its own.
        what: what is computed differently.
    """

    path: str
    module: nn.Module
    role: str
    form: type[nn.Module]
    what: str


@dataclass(frozen=True)
class Plan:
    """What would be done to a model.

    Attributes:
        model: what it was recognised as.
        steps: modules that get another form.
        kept: (path, why) of parts that stay as they are.
        blocks: those of the steps that are transformer blocks.
        unknown: (path, why) of modules that have a known class's name and other code.
    """

    model: str
    steps: tuple[Step, ...]
    kept: tuple[tuple[str, str], ...]
    blocks: tuple[Step, ...]
    unknown: tuple[tuple[str, str], ...]


def make_plan(model: nn.Module) -> Plan:
    """The plan for a model, which may be wrapped in others and need not be known as a whole."""
    steps: list[Step] = []
    kept: list[tuple[str, str]] = []
    unknown: list[tuple[str, str]] = []
    for path, module in model.named_modules():
        found = list(_roles(module))
        known = next((role for role in found if why_unknown(module, role) is None), None)
        if known is not None:
            role = ROLES[known]
            steps.append(Step(path, module, known, _named(role.form), role.what))
        elif found:
            unknown.append((path, why_unknown(module, found[0]) or ""))
    blocks = []
    for step in steps:
        kind = ROLES[step.role].blocks
        if kind is None:
            continue
        why = _named(kind).why_not(step.module)
        if why is None:
            blocks.append(step)
            kept += [(f"{step.path}.{part}", own) for part, own in _named(kind).kept(step.module)]
        else:
            kept.append((step.path, why))
    kept += unknown
    names = {kind.__name__ for module in model.modules() for kind in type(module).__mro__}
    kept += [(part, why) for name, part, why in _STAYS if name in names]
    return Plan(_called(model, steps), tuple(steps), tuple(kept), tuple(blocks), tuple(unknown))


def accept_names(model: nn.Module) -> list[tuple[str, type[nn.Module]]]:
    """Takes every module of a known class's name for one that computes what that class does.

    Returns:
        The (role, class) pairs whose code is not known.
    """
    taken: list[tuple[str, type[nn.Module]]] = []
    for module in model.modules():
        for role in _roles(module, parts=True):
            if why_unknown(module, role) is not None:
                taken.append((role, type(module)))
                accept(role, type(module))
            break
    return taken


_PARTS = (
    "Attention", "Mlp", "DropPath", "PatchEmbed", "VideoMAEModel", "VideoMAEPatchEmbeddings",
    "VideoMAESelfAttention", "VideoMAESelfOutput", "VideoMAEAttention", "VideoMAEIntermediate",
    "VideoMAEOutput",
)  # fmt: skip


def _roles(module: nn.Module, *, parts: bool = False) -> Iterator[str]:
    """The roles that a module's class, or one that it is derived from, is named for."""
    if is_form(module):
        return
    for kind in type(module).__mro__:
        for role in NAMES.get(kind.__name__, (kind.__name__,)):
            if role.startswith("VideoMAE") and "transformers" not in sys.modules:
                continue
            if role in ROLES or (parts and role in _PARTS):
                yield role


def _named(name: str) -> Any:
    module, attribute = name.split(".")
    return getattr(import_module(f"{__package__}.{module}"), attribute)


def _called(model: nn.Module, steps: list[Step]) -> str:
    whole = {ROLES[step.role].model for step in steps} - {None}
    if whole:
        return " and ".join(sorted(filter(None, whole)))
    kinds = {kind.__name__ for module in model.modules() for kind in type(module).__mro__}
    for name in ("VideoMAEForVideoClassification", "VideoMAEModel"):
        if name in kinds and steps:
            return f"Hugging Face's {name}"
    return f"blocks of {type(model).__name__}"


def told(entries: Iterable[tuple[str, str]]) -> list[str]:
    """A line for all (path, what) that differ in block numbers only, in the order of the first."""
    counts = Counter((_pattern(path), what) for path, what in entries)
    return [f"{path}{f' ({n})' if n > 1 else ''}: {what}" for (path, what), n in counts.items()]


def _pattern(path: str) -> str:
    """A path with block numbers left out."""
    return ".".join("*" if part.isdigit() else part for part in path.split(".")) or "the model"
