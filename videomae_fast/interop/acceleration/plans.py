"""Which parts of which models are given another form: recognition by names and structure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from videomae_fast.interop.acceleration.inputs import why_no_embedding
from videomae_fast.interop.acceleration.views import why_not_hugging_face, why_not_official
from videomae_fast.models.linear import Linear


@dataclass(frozen=True)
class Step:
    """One module that gets another form.

    Attributes:
        path: of the module, as in ``named_modules``; "" is the model.
        module: the module.
        form: whose methods go before its own.
        what: what is computed differently.
    """

    path: str
    module: nn.Module
    form: type[nn.Module]
    what: str


@dataclass(frozen=True)
class Plan:
    """What would be done to a model.

    Attributes:
        model: what it was recognised as.
        steps: modules that get another form.
        kept: (path, why) of parts that stay as they are.
        problems: why it can't be done; nothing is touched then.
    """

    model: str
    steps: tuple[Step, ...]
    kept: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]


def recognised(model: nn.Module) -> Plan | None:
    """The plan for a model, or None if it is none of those known."""
    plan = {
        "PretrainVisionTransformer": _official_pretraining,
        "VisionTransformer": _official_classifier,
        "VideoMAEForPreTraining": _hugging_face,
        "VideoMAEModel": _hugging_face,
        "VideoMAEForVideoClassification": _hugging_face,
    }.get(_forward_class(model))
    if plan is None or not _has_parts(model):
        return None
    return plan(model)


_BLOCK = "LayerNorm with residual, attention, bias with GELU: this library's ops"
_STACK = "runs its blocks as one stack, the last one for the predicted tokens only"


def _official_pretraining(model: Any) -> Plan:
    from videomae_fast.interop.acceleration import official

    problems = [
        *_wrong_class(model.encoder, "encoder", "PretrainVisionTransformerEncoder"),
        *_wrong_class(model.decoder, "decoder", "PretrainVisionTransformerDecoder"),
        *_no_embedding(model.encoder.patch_embed.proj, "encoder.patch_embed.proj"),
    ]
    steps = [
        Step("", model, official.PretrainingForm, "masks as indices, one pass of assembly"),
        Step(
            "encoder",
            model.encoder,
            official.EncoderForm,
            "only visible tokens are embedded; positions on the device",
        ),
        Step("decoder", model.decoder, official.DecoderForm, _STACK),
        *_linear(model.encoder_to_decoder, "encoder_to_decoder"),
        *_linear(model.decoder.head, "decoder.head"),
    ]
    for name in ("encoder", "decoder"):
        stack = getattr(model, name).blocks
        _add_blocks(stack, f"{name}.blocks", official.BlockForm, why_not_official, steps, problems)
    kept = [("encoder.norm, decoder.norm", "part of the last block's pass"), *_own_loss()]
    return Plan("the official pre-training model", tuple(steps), tuple(kept), tuple(problems))


def _official_classifier(model: Any) -> Plan:
    from videomae_fast.interop.acceleration import official

    problems = _no_embedding(model.patch_embed.proj, "patch_embed.proj")
    steps = [
        Step(
            "",
            model,
            official.ClassifierForm,
            "embedding as a matmul, positions on the device, blocks as one stack",
        )
    ]
    _add_blocks(model.blocks, "blocks", official.BlockForm, why_not_official, steps, problems)
    kept = (("fc_norm, head", "one row per clip: nothing to gain"),)
    return Plan("the official classifier", tuple(steps), kept, tuple(problems))


def _hugging_face(model: Any) -> Plan:
    from videomae_fast.interop.acceleration import hugging_face as forms

    problems: list[str] = []
    steps: list[Step] = []
    kept: list[tuple[str, str]] = []
    name = _forward_class(model)
    base, inner = (model, "") if name == "VideoMAEModel" else (model.videomae, "videomae.")
    problems += _no_embedding(
        base.embeddings.patch_embeddings.projection,
        f"{inner}embeddings.patch_embeddings.projection",
    )
    if name == "VideoMAEForPreTraining":
        steps += [
            Step(
                "",
                model,
                forms.PretrainingForm,
                "masks as indices, one pass of assembly, targets for the decoded tokens only",
            ),
            Step("decoder", model.decoder, forms.DecoderForm, _STACK),
            *_linear(model.encoder_to_decoder, "encoder_to_decoder"),
            *_linear(model.decoder.head, "decoder.head"),
        ]
        layers = model.decoder.decoder_layers
        _add_blocks(
            layers, "decoder.decoder_layers", forms.LayerForm, why_not_hugging_face, steps, problems
        )
        kept.append(
            ("loss of float clips", "with uint8 frames [B, T, H, W, 3] it is one fused pass")
        )
    if name == "VideoMAEForVideoClassification":
        kept.append(("fc_norm, classifier", "one row per clip: nothing to gain"))
    if base.layernorm is not None:
        kept.append((f"{inner}layernorm", "torch's, outside the stack"))
    steps += [
        Step(
            f"{inner}embeddings",
            base.embeddings,
            forms.EmbeddingsForm,
            "only visible tokens are embedded; positions on the device",
        ),
        Step(f"{inner}encoder", base.encoder, forms.EncoderForm, "runs its layers as one stack"),
    ]
    _add_blocks(
        base.encoder.layer,
        f"{inner}encoder.layer",
        forms.LayerForm,
        why_not_hugging_face,
        steps,
        problems,
    )
    return Plan(f"Hugging Face's {name}", tuple(steps), tuple(kept), tuple(problems))


def _add_blocks(
    blocks: Any,
    path: str,
    form: type[nn.Module],
    why_not: Callable[[nn.Module], str | None],
    steps: list[Step],
    problems: list[str],
) -> None:
    for i, block in enumerate(blocks):
        why = why_not(block)
        if why is not None:
            problems.append(f"{path}.{i}: {why}")
        steps.append(Step(f"{path}.{i}", block, form, _BLOCK))


def _linear(module: nn.Module, path: str) -> Iterator[Step]:
    if type(module) is nn.Linear:
        yield Step(path, module, Linear, "this library's linear layer")


def _own_loss() -> Iterator[tuple[str, str]]:
    yield (
        "the loss",
        "it is in the training loop: masked_pixel_loss(prediction, frames, masks) replaces it",
    )


def _no_embedding(proj: nn.Module, path: str) -> list[str]:
    why = why_no_embedding(proj)
    return [] if why is None else [f"{path}: {why}"]


def _wrong_class(module: nn.Module, path: str, name: str) -> list[str]:
    found = _forward_class(module)
    return [] if found == name else [f"{path}: its forward is that of {found}, not of {name}"]


def _forward_class(module: nn.Module) -> str:
    """The name of the class that defines the module's `forward`."""
    return next(kind.__name__ for kind in type(module).__mro__ if "forward" in vars(kind))


def _has_parts(model: nn.Module) -> bool:
    """Whether the model has the parts that its name promises; other libraries use these names."""
    parts = {
        "PretrainVisionTransformer": (
            "encoder.patch_embed.proj", "encoder.blocks", "encoder.norm", "encoder_to_decoder",
            "decoder.blocks", "decoder.norm", "decoder.head",
        ),
        "VisionTransformer": ("patch_embed.proj", "pos_drop", "blocks", "norm"),
        "VideoMAEForPreTraining": ("videomae.encoder.layer", "decoder.decoder_layers"),
        "VideoMAEModel": ("embeddings.patch_embeddings.projection", "encoder.layer"),
        "VideoMAEForVideoClassification": ("videomae.encoder.layer",),
    }[_forward_class(model)]  # fmt: skip
    names = {name for name, _ in model.named_modules()}
    tubes = any(isinstance(module, nn.Conv3d) for module in model.modules())
    return tubes and all(part in names for part in parts)
