"""Hooks and parametrisations that users put on a model, before or after it is accelerated."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from tests.interop.forks.changes import Case, part, scaled
from tests.interop.forks.comparing import Change

BLOCK, ATTN, MLP = "encoder.blocks.1", "encoder.blocks.1.attn", "encoder.blocks.0.mlp"
PARTS = (
    "",
    "encoder",
    "encoder.patch_embed",
    "encoder.patch_embed.proj",
    "encoder.blocks",
    BLOCK,
    BLOCK + ".norm1",
    ATTN,
    ATTN + ".qkv",
    ATTN + ".attn_drop",
    ATTN + ".proj",
    BLOCK + ".drop_path",
    MLP,
    MLP + ".fc1",
    MLP + ".act",
    "encoder.norm",
    "encoder.head",
    "encoder_to_decoder",
    "decoder",
    "decoder.blocks.0",
    "decoder.norm",
    "decoder.head",
)
CLASSIFIER_PARTS = (
    "",
    "patch_embed",
    "pos_drop",
    "blocks.0.mlp",
    "norm",
    "fc_norm",
    "head_dropout",
    "head",
)
DROPPED = {"drop_path": 0.3}


def counted(module: nn.Module) -> nn.Module:
    """Counts the calls of a hook, so that one which is passed over is seen."""
    calls = vars(module)
    calls["calls"] = calls.get("calls", 0) + 1
    return module


def on_output(path: str) -> Change:
    """A forward hook that changes the output."""

    def hook(module: nn.Module, inputs: Any, out: Any) -> Any:
        counted(module)
        return scaled(out)

    return lambda model: part(model, path).register_forward_hook(hook) and None


def on_input(path: str) -> Change:
    """A forward hook before, that changes the first input."""

    def hook(module: nn.Module, inputs: Any) -> Any:
        counted(module)
        return (inputs[0].tanh(), *inputs[1:])

    return lambda model: part(model, path).register_forward_pre_hook(hook) and None


def with_words(path: str) -> Change:
    """A forward hook that gets keyword arguments too, and has to be called always."""

    def hook(module: nn.Module, inputs: Any, words: Any, out: Any) -> Any:
        counted(module)
        return scaled(out)

    def change(model: Any) -> None:
        part(model, path).register_forward_hook(hook, with_kwargs=True, always_call=True)

    return change


def halved(gradients: Any) -> Any:
    return tuple(None if g is None else g / 2 for g in gradients)


def on_gradient(path: str) -> Change:
    """A full backward hook that changes the gradient."""

    def hook(module: nn.Module, inner: Any, outer: Any) -> Any:
        return halved(inner) if counted(module) else None

    return lambda model: part(model, path).register_full_backward_hook(hook) and None


def on_outer_gradient(path: str) -> Change:
    """The same before a module's own backward pass."""

    def hook(module: nn.Module, outer: Any) -> Any:
        return halved(outer) if counted(module) else None

    return lambda model: part(model, path).register_full_backward_pre_hook(hook) and None


def everywhere(register: Callable[..., Any], kind: type[nn.Module] | str, when: str) -> Change:
    """A global hook that changes what modules of one class take or give."""

    def fits(module: nn.Module) -> bool:
        return (type(module).__name__ == kind or type(module) is kind) and bool(counted(module))

    hooks = {
        "output": lambda module, inputs, out: scaled(out) if fits(module) else None,
        "input": lambda module, inputs: (inputs[0].tanh(), *inputs[1:]) if fits(module) else None,
        "gradient": lambda module, inner, outer: halved(inner) if fits(module) else None,
        "outer gradient": lambda module, outer: halved(outer) if fits(module) else None,
    }
    return lambda model: register(hooks[when]).remove


_module = nn.modules.module
HOOKS: dict[str, Case] = {
    **{
        f"on the output of {path or 'the model'}": Case(on_output(path), settings=DROPPED)
        for path in PARTS
        if path != "encoder.blocks"
    },
    **{
        f"on the input of {path or 'the model'}": Case(on_input(path), settings=DROPPED)
        for path in PARTS[1::2]
        if path != "encoder.blocks"
    },
    **{
        f"on the gradient of {path or 'the model'}": Case(on_gradient(path), settings=DROPPED)
        for path in PARTS[1::2]
        if path != "encoder.blocks"
    },
    **{
        f"on the outer gradient of {path or 'the model'}": Case(on_outer_gradient(path))
        for path in (BLOCK, ATTN, MLP + ".fc1", "encoder.norm", "encoder.patch_embed.proj")
    },
    **{
        f"with keywords on {path}": Case(with_words(path))
        for path in ("decoder", BLOCK, MLP, "encoder.norm")
    },
    **{
        f"on the output of the classifier's {path or 'whole'}": Case(on_output(path), True)
        for path in CLASSIFIER_PARTS
    },
    "on the gradient of the classifier's fc_norm": Case(on_gradient("fc_norm"), True),
    **{
        f"on the output of every {getattr(kind, '__name__', kind)}": Case(
            everywhere(_module.register_module_forward_hook, kind, "output"), settings=DROPPED
        )
        for kind in (
            nn.LayerNorm,
            nn.Conv3d,
            nn.Linear,
            nn.GELU,
            "PatchEmbed",
            "Attention",
            "Block",
            "DropPath",
            "PretrainVisionTransformerEncoder",
        )
    },
    **{
        f"on the input of every {getattr(kind, '__name__', kind)}": Case(
            everywhere(_module.register_module_forward_pre_hook, kind, "input")
        )
        for kind in (nn.LayerNorm, "Mlp")
    },
    **{
        f"on the gradient of every {getattr(kind, '__name__', kind)}": Case(
            everywhere(_module.register_module_full_backward_hook, kind, "gradient")
        )
        for kind in (nn.LayerNorm, nn.Conv3d, "Attention")
    },
    "on the outer gradient of every Linear": Case(
        everywhere(_module.register_module_full_backward_pre_hook, nn.Linear, "outer gradient")
    ),
    "after a gradient is accumulated": Case(
        lambda m: (
            part(m, MLP).fc1.weight.register_post_accumulate_grad_hook(
                lambda p: setattr(p, "grad", p.grad / 2)
            )
            and None
        )
    ),
}


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


class Thinned(nn.Module):
    """DropConnect: another draw at each call."""

    def forward(self, weight: Tensor) -> Tensor:
        return nn.functional.dropout(weight, 0.3, self.training)


def registers(path: str, name: str = "weight", kind: type[nn.Module] = Doubled) -> Change:
    def change(model: Any) -> None:
        parametrize.register_parametrization(part(model, path), name, kind())

    return change


def applies(function: Callable[..., Any], path: str, *args: Any, **settings: Any) -> Change:
    """A function of torch.nn.utils that changes a module's weight."""

    def change(model: Any) -> None:
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")  # older forms of some of them are deprecated
            torch.manual_seed(8)
            function(part(model, path), *args, **settings)

    return change


WEIGHTED = ("encoder.patch_embed.proj", ATTN + ".qkv", MLP + ".fc2", "decoder.head")
PARAMETRISED: dict[str, Case] = {
    **{
        f"{path}.weight": Case(registers(path))
        for path in (
            *WEIGHTED,
            ATTN + ".proj",
            "encoder_to_decoder",
            BLOCK + ".norm1",
            "encoder.norm",
            "decoder.norm",
        )
    },
    f"{ATTN}.q_bias": Case(registers(ATTN, "q_bias")),
    "encoder.patch_embed.proj.bias": Case(registers("encoder.patch_embed.proj", "bias")),
    "mask_token": Case(registers("", "mask_token")),
    f"{BLOCK}.gamma_1": Case(registers(BLOCK, "gamma_1"), settings={"init_values": 0.5}),
    **{f"{path}.weight, thinned": Case(registers(path, kind=Thinned)) for path in WEIGHTED[:3]},
    **{
        f"{path}, weight_norm": Case(applies(parametrizations.weight_norm, path))
        for path in WEIGHTED
    },
    **{f"{path}, old weight_norm": Case(applies(nn.utils.weight_norm, path)) for path in WEIGHTED},
    **{
        f"{path}, spectral_norm": Case(applies(parametrizations.spectral_norm, path))
        for path in WEIGHTED
    },
    **{
        f"{path}, old spectral_norm": Case(applies(nn.utils.spectral_norm, path))
        for path in WEIGHTED
    },
    **{
        f"{path}, orthogonal": Case(applies(parametrizations.orthogonal, path))
        for path in WEIGHTED[1:2]
    },
    **{
        f"{path}, pruned": Case(applies(prune.l1_unstructured, path, "weight", amount=0.5))
        for path in WEIGHTED
    },
    f"{MLP}.fc1, pruned in rows": Case(
        applies(prune.ln_structured, MLP + ".fc1", "weight", amount=0.5, n=2, dim=0)
    ),
    "the classifier's patch_embed.proj": Case(registers("patch_embed.proj"), True),
    "the classifier's fc_norm": Case(registers("fc_norm"), True),
    "the classifier's patch_embed.proj, pruned": Case(
        applies(prune.l1_unstructured, "patch_embed.proj", "weight", amount=0.5), True
    ),
    "the classifier's blocks.0.mlp.fc1, spectral_norm": Case(
        applies(parametrizations.spectral_norm, "blocks.0.mlp.fc1"), True
    ),
}

ALL: dict[str, Case] = {
    **{f"hook: {name}": one for name, one in HOOKS.items()},
    **{f"parametrised: {name}": one for name, one in PARAMETRISED.items()},
}
