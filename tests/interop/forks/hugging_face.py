"""What users do to Hugging Face's models, before or after they are accelerated."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from tests.interop.forks import inputs
from tests.interop.forks.additions import Doubled, on_gradient, on_output
from tests.interop.forks.changes import (
    Beside,
    LowRank,
    Scaled,
    Unit,
    forwards,
    part,
    scaled,
    sets,
    wraps,
)
from tests.interop.forks.comparing import Change, Loss, nothing
from tests.support.official_models import randomise

KINDS = {
    "pretraining": "VideoMAEForPreTraining",
    "base": "VideoMAEModel",
    "classification": "VideoMAEForVideoClassification",
}


def modeling() -> Any:
    """transformers' file; its import takes seconds."""
    from transformers.models.videomae import modeling_videomae

    return modeling_videomae


def pixels() -> Tensor:
    """fp32 [3, 4, 3, 32, 32]."""
    return inputs.clips().transpose(1, 2)


def pretraining_loss(model: Any, number: int = 0) -> Tensor:
    out = model(pixels(), bool_masked_pos=inputs.mask())
    return out.loss + inputs.distance(out)


def base_loss(model: Any, number: int = 0) -> Tensor:
    mask = inputs.mask() if number % 2 else None
    return inputs.distance(model(pixels(), bool_masked_pos=mask)[0])


def classification_loss(model: Any, number: int = 0) -> Tensor:
    return model(pixels(), labels=torch.tensor([0, 3, 1])).loss


LOSSES: dict[str, Loss] = {
    "pretraining": pretraining_loss,
    "base": base_loss,
    "classification": classification_loss,
}


@cache
def _made(kind: str, settings: tuple[tuple[str, Any], ...]) -> nn.Module:
    sizes: dict[str, Any] = {
        "image_size": 32, "num_frames": 4, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 48, "decoder_hidden_size": 16,
        "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 24, "num_labels": 5,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        file = modeling()
        config = file.VideoMAEConfig(**{**sizes, **dict(settings)})
        return randomise(getattr(file, KINDS[kind])(config))


def made(kind: str, **settings: Any) -> nn.Module:
    """A tiny model, random in every parameter."""
    return copy.deepcopy(_made(kind, tuple(settings.items())))


@dataclass(frozen=True)
class Case:
    """A change, the model that it is made to, and what is computed with it (None: its loss)."""

    change: Change = nothing
    kind: str = "pretraining"
    settings: dict[str, Any] = field(default_factory=dict)
    loss: Loss | None = None
    raises: bool = False


def attends_otherwise(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **settings: Any
) -> tuple[Tensor, None]:
    """An attention function of the user's: softmax of distances."""
    weights = (-torch.cdist(query, key)).softmax(-1)
    return (weights @ value).transpose(1, 2).contiguous(), None


def registers(name: str, uses: bool = True) -> Change:
    """An attention function under a new name, or in the place of one that is there."""

    def change(model: Any) -> Callable[[], None]:
        functions = modeling().ALL_ATTENTION_FUNCTIONS
        held = type(functions)._global_mapping
        before = held.get(name)
        functions.register(name, attends_otherwise)
        if uses:
            model.set_attn_implementation(name)

        def undo() -> None:
            held.pop(name, None)
            if before is not None:
                held[name] = before

        return undo

    return change


def patches_file(name: str, new: Any) -> Change:
    """A name of transformers' own file is replaced."""

    def change(model: Any) -> Callable[[], None]:
        file = modeling()
        before = getattr(file, name)
        setattr(file, name, new)
        return lambda: setattr(file, name, before)

    return change


def patches_class(name: str) -> Change:
    def change(model: Any) -> Callable[[], None]:
        kind = getattr(modeling(), name)
        before = kind.forward
        kind.forward = lambda self, *args, **kwargs: _scaled(before(self, *args, **kwargs))
        return lambda: setattr(kind, "forward", before)

    return change


def _scaled(out: Any) -> Any:
    if isinstance(out, tuple):
        return (scaled(out[0]), *out[1:])
    if isinstance(out, Tensor):
        return scaled(out)
    first = next(
        name for name in ("last_hidden_state", "logits") if getattr(out, name, None) is not None
    )
    return type(out)(**{**out, first: scaled(out[first])})


def sets_config(**values: Any) -> Change:
    def change(model: Any) -> None:
        for module in model.modules():
            for name, value in values.items():
                if hasattr(module, "config"):
                    setattr(module.config, name, value)

    return change


def outputs(**wanted: Any) -> Loss:
    """The loss with everything that comes out beside it."""

    def loss(model: Any, number: int = 0) -> Tensor:
        total = torch.zeros(())
        out = model(pixels(), inputs.mask(), **wanted)
        found = out.to_tuple() if hasattr(out, "to_tuple") else out
        flat = [one for value in found for one in (value if isinstance(value, tuple) else (value,))]
        for number, one in enumerate(flat):
            total = total + (number + 1) * one.square().mean()
        return total + len(flat)

    return loss


def classified(**words: Any) -> Loss:
    return lambda model, number=0: inputs.distance(model(pixels(), **words))


def checkpoints(model: Any) -> None:
    model.gradient_checkpointing_enable()


LAYER, BASE = "videomae.encoder.layer.1", "videomae.embeddings"
ATTN = LAYER + ".attention.attention"
EAGER, SDPA = {"attn_implementation": "eager"}, {"attn_implementation": "sdpa"}

CASES: dict[str, Case] = {
    **{f"{kind} as it is": Case(kind=kind) for kind in KINDS},
    "pretraining, eager": Case(settings=EAGER),
    "pretraining without norm_pix_loss": Case(settings={"norm_pix_loss": False}),
    "base without mean pooling": Case(kind="base", settings={"use_mean_pooling": False}),
    "classification without mean pooling": Case(
        kind="classification", settings={"use_mean_pooling": False}
    ),
    "regression": Case(
        kind="classification",
        settings={"num_labels": 1},
        loss=lambda m, n=0: m(pixels(), labels=torch.ones(3)).loss,
    ),
    "no biases": Case(settings={"qv_bias": False}),
    "GELU's tanh form": Case(settings={"hidden_act": "gelu_new"}),
    "ReLU": Case(settings={"hidden_act": "relu"}),
    "dropout": Case(settings={"hidden_dropout_prob": 0.2}),
    "dropout of attention": Case(settings={"attention_probs_dropout_prob": 0.2, **EAGER}),
    "checkpoints": Case(checkpoints),
    # Attention functions
    "attention registered": Case(registers("mine")),
    "attention registered for sdpa": Case(registers("sdpa", uses=False), settings=SDPA),
    "eager_attention_forward": Case(
        patches_file("eager_attention_forward", attends_otherwise), settings=EAGER
    ),
    "set_attn_implementation eager": Case(lambda m: m.set_attn_implementation("eager")),
    "set_attn_implementation sdpa": Case(
        lambda m: m.set_attn_implementation("sdpa"), settings=EAGER
    ),
    "set_attn_implementation unknown": Case(
        lambda m: m.set_attn_implementation("none of these"), raises=True
    ),
    # Values
    "scaling": Case(sets(ATTN, scaling=0.5)),
    "dropout_prob": Case(sets(ATTN, dropout_prob=0.3), settings=EAGER),
    "dropout.p": Case(sets(LAYER + ".output.dropout", p=0.3)),
    "is_causal": Case(sets(ATTN, is_causal=True), settings=SDPA),
    "num_attention_heads": Case(sets(ATTN, num_attention_heads=1)),
    "config.norm_pix_loss": Case(sets_config(norm_pix_loss=False)),
    "config.output_hidden_states": Case(sets_config(output_hidden_states=True), loss=outputs()),
    "config.output_attentions": Case(
        sets_config(output_attentions=True), settings=EAGER, loss=outputs()
    ),
    "position_embeddings of the encoder": Case(sets(BASE, position_embeddings=lambda old: 2 * old)),
    "position_embeddings of the decoder": Case(sets("", position_embeddings=lambda old: old + 1)),
    "position_embeddings, a parameter": Case(
        sets("", position_embeddings=lambda old: nn.Parameter(old + 1))
    ),
    "mask_token": Case(sets("", mask_token=lambda old: nn.Parameter(old.detach() + 1))),
    "image_size": Case(sets(BASE + ".patch_embeddings", image_size=(48, 48)), raises=True),
    "num_channels": Case(sets(BASE + ".patch_embeddings", num_channels=4), raises=True),
    "key.bias": Case(sets(ATTN + ".key", bias=lambda old: nn.Parameter(torch.ones(32)))),
    "eps": Case(sets(LAYER + ".layernorm_before", eps=0.4)),
    # Modules
    "activation": Case(sets(LAYER + ".intermediate", intermediate_act_fn=lambda old: nn.ReLU())),
    "activation, a function": Case(
        sets(LAYER + ".intermediate", intermediate_act_fn=lambda old: torch.tanh), raises=True
    ),
    "LoRA in query": Case(sets(ATTN, query=lambda old: LowRank(old))),
    "LoRA in key that begins as zero": Case(sets(ATTN, key=lambda old: LowRank(old, True))),
    "LoRA in dense": Case(sets(LAYER + ".output", dense=lambda old: LowRank(old))),
    "patch_embeddings": Case(sets(BASE, patch_embeddings=Scaled)),
    "projection": Case(sets(BASE + ".patch_embeddings", projection=Scaled)),
    "embeddings": Case(sets("videomae", embeddings=Scaled)),
    "encoder's layernorm": Case(
        sets("videomae", layernorm=lambda old: Unit(32)), settings={"use_mean_pooling": False}
    ),
    "encoder's layernorm, None": Case(
        lambda m: setattr(m.videomae, "layernorm", None), settings={"use_mean_pooling": False}
    ),
    "encoder's layernorm, new": Case(lambda m: setattr(m.videomae, "layernorm", Unit(32))),
    "decoder's norm": Case(sets("decoder", norm=lambda old: Unit(16))),
    "layer's norm": Case(sets(LAYER, layernorm_after=lambda old: Unit(32))),
    "decoder's head": Case(sets("decoder", head=Beside)),
    "encoder_to_decoder": Case(sets("", encoder_to_decoder=Scaled)),
    "attention": Case(sets(LAYER, attention=Scaled)),
    "layer": Case(
        lambda m: m.videomae.encoder.layer.__setitem__(0, Scaled(m.videomae.encoder.layer[0]))
    ),
    "fewer layers": Case(lambda m: m.videomae.encoder.layer.__delitem__(0)),
    "the layers' order": Case(
        lambda m: setattr(
            m.videomae.encoder, "layer", nn.ModuleList(reversed(m.videomae.encoder.layer))
        )
    ),
    "classifier": Case(sets("", classifier=Beside), "classification"),
    "fc_norm": Case(sets("", fc_norm=Beside), "classification"),
    "fc_norm, None": Case(lambda m: setattr(m, "fc_norm", None), "classification"),
    "frozen": Case(lambda m: m.videomae.requires_grad_(False) and None),
    # Methods
    "layer.forward": Case(
        forwards(LAYER, lambda self, x, **words: x + self.intermediate(x)[..., :32])
    ),
    **{
        f"{path or 'model'}.forward wrapped": Case(_wraps)
        for path in (
            ATTN + ".query",
            LAYER + ".attention",
            LAYER + ".intermediate",
            LAYER + ".output",
            LAYER,
            LAYER + ".layernorm_before",
            BASE + ".patch_embeddings",
            BASE,
            "encoder_to_decoder",
            "decoder.norm",
            "decoder.head",
        )
        for _wraps in [wraps(path)]
    },
    **{
        f"{name}.forward patched": Case(patches_class(name), settings=EAGER)
        for name in (
            "VideoMAESelfAttention",
            "VideoMAEAttention",
            "VideoMAEIntermediate",
            "VideoMAEOutput",
            "VideoMAELayer",
            "VideoMAEPatchEmbeddings",
            "VideoMAEEmbeddings",
            "VideoMAEEncoder",
            "VideoMAEDecoder",
            "VideoMAEModel",
        )
    },
    "a constant of the file": Case(
        patches_file("IMAGENET_DEFAULT_MEAN", (0.5, 0.5, 0.5)), settings={"norm_pix_loss": False}
    ),
    # Hooks and parametrisations
    **{
        f"hook on the output of {path}": Case(on_output(path))
        for path in (
            BASE,
            BASE + ".patch_embeddings",
            BASE + ".patch_embeddings.projection",
            LAYER,
            ATTN + ".value",
            LAYER + ".intermediate",
            "decoder.norm",
            "decoder.head",
            "encoder_to_decoder",
        )
    },
    "hook on the gradient of decoder.norm": Case(on_gradient("decoder.norm")),
    "hook on the gradient of a layer": Case(on_gradient(LAYER)),
    "parametrised projection": Case(
        lambda m: (
            parametrize.register_parametrization(
                part(m, BASE + ".patch_embeddings.projection"), "weight", Doubled()
            )
            and None
        )
    ),
    "parametrised query": Case(
        lambda m: (
            parametrize.register_parametrization(part(m, ATTN).query, "weight", Doubled()) and None
        )
    ),
    "pruned projection": Case(
        lambda m: (
            prune.l1_unstructured(part(m, BASE + ".patch_embeddings.projection"), "weight", 0.5)
            and None
        )
    ),
    "spectral_norm on value": Case(lambda m: nn.utils.spectral_norm(part(m, ATTN).value) and None),
    # What comes out
    "output_hidden_states": Case(loss=outputs(output_hidden_states=True)),
    "output_attentions": Case(settings=EAGER, loss=outputs(output_attentions=True)),
    "output_attentions of sdpa": Case(settings=SDPA, loss=outputs(output_attentions=True)),
    "both of the encoder": Case(
        kind="base", settings=EAGER, loss=outputs(output_attentions=True, output_hidden_states=True)
    ),
    "a tuple": Case(loss=outputs(return_dict=False)),
    "a word that nobody knows": Case(loss=outputs(unknown=True)),
    "classified with hidden states": Case(
        kind="classification", loss=classified(output_hidden_states=True)
    ),
    "classified as a tuple": Case(kind="classification", loss=classified(return_dict=False)),
}
