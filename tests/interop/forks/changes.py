"""What users do to a model of the official code, before or after it is accelerated."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from tests.interop.forks.comparing import Change

WIDTH, DECODER_WIDTH = 32, 16  # of the stand-in's default size


@dataclass(frozen=True)
class Case:
    """A change to a model of the stand-in's classes.

    Attributes:
        classifier: the model is the classifier, not the one for pre-training.
        settings: arguments of the model.
        raises: the changed model can't compute anything.
    """

    change: Change
    classifier: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    raises: bool = False


def part(model: Any, path: str) -> Any:
    return model.get_submodule(path) if path else model


def forwards(path: str, forward: Callable[..., Any]) -> Change:
    """The instance gets another `forward`."""

    def change(model: Any) -> None:
        module = part(model, path)
        module.forward = MethodType(forward, module)

    return change


def wraps(path: str, name: str = "forward") -> Change:
    """A method of the instance is wrapped, as profilers and offloading do; here it also scales."""

    def change(model: Any) -> None:
        module = part(model, path)
        inner = getattr(module, name)
        setattr(module, name, lambda *args, **kwargs: scaled(inner(*args, **kwargs)))

    return change


def scaled(out: Any) -> Any:
    return 1.5 * out


def patches(class_name: str, name: str = "forward") -> Change:
    """A method of a class is wrapped after the class was made."""

    def change(model: Any) -> None:
        kind = vars(sys.modules[official_module(model)])[class_name]
        inner = getattr(kind, name)
        setattr(kind, name, lambda self, *args, **kwargs: scaled(inner(self, *args, **kwargs)))

    return change


def official_module(model: nn.Module) -> str:
    """The module of the model's own class, whatever its class has become."""
    kinds = ("PretrainVisionTransformer", "VisionTransformer")
    return next(kind.__module__ for kind in type(model).__mro__ if kind.__name__ in kinds)


def patches_everywhere(kind: type[nn.Module]) -> Change:
    """A method of one of torch's own classes is replaced, for all models."""

    def change(model: Any) -> Callable[[], None]:
        inner = kind.forward
        kind.forward = lambda self, x: scaled(inner(self, x))
        return lambda: setattr(kind, "forward", inner)

    return change


def sets(path: str, **attributes: Any) -> Change:
    """Attributes of one module are set; a function is called with the old value."""

    def change(model: Any) -> None:
        module = part(model, path)
        for name, value in attributes.items():
            new = value(getattr(module, name)) if callable(value) else copy.deepcopy(value)
            setattr(module, name, new)

    return change


def seeded(build: Callable[[], nn.Module]) -> Callable[[Any], nn.Module]:
    """Makes the same module each time; what was there before does not matter."""

    def make(_: Any) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            return build()

    return make


class LowRank(nn.Linear):
    """A linear layer with an adapter of its own, as LoRA libraries make them."""

    def __init__(self, base: nn.Linear, begins_as_zero: bool = False) -> None:
        super().__init__(base.in_features, base.out_features, base.bias is not None)
        self.load_state_dict(base.state_dict())
        size = base.in_features
        self.down = nn.Parameter(torch.linspace(-1, 1, 2 * size).view(2, size))
        up = torch.linspace(-0.3, 0.2, 2 * base.out_features).view(-1, 2)
        self.up = nn.Parameter(up * (not begins_as_zero))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x @ self.down.T @ self.up.T


class Beside(nn.Module):
    """A wrapper in a module's place, with a branch beside it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + 0.3 * x.mean(-1, keepdim=True)


class Scaled(nn.Module):
    """A wrapper with the signature of what it wraps."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return scaled(self.inner(*args, **kwargs))


class Unit(nn.LayerNorm):
    """A LayerNorm by its class only."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.square().mean(-1, keepdim=True).rsqrt() * self.weight


def norm(width: int = WIDTH, **settings: Any) -> Callable[[Any], nn.Module]:
    return lambda old: nn.LayerNorm(width, **settings)


def halves(module: nn.Linear) -> None:
    """A tensor hook: the gradient of a weight is halved."""
    module.weight.register_hook(lambda gradient: gradient / 2)


def later(change: Callable[[Any], Any]) -> Change:
    """Drops what a change returns."""

    def done(model: Any) -> None:
        change(model)

    return done


def replaces_block(model: Any) -> None:
    other = copy.deepcopy(model.encoder.blocks[0])
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.7)
    model.encoder.blocks[1] = other


def subclasses_block(model: Any) -> None:
    """The instance's class becomes a subclass with another forward."""
    block = model.encoder.blocks[1]

    class Block(type(block)):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            return 1.5 * super().forward(x)

    block.__class__ = Block


def patches_function(name: str, new: Callable[[Any], Any]) -> Change:
    """A function or name of the model's file is replaced."""

    def change(model: Any) -> None:
        module = sys.modules[official_module(model)]
        setattr(module, name, new(getattr(module, name)))

    return change


def attends_only(self: Any, x: Tensor) -> Tensor:
    return x + self.attn(self.norm1(x))


def mean_only(self: Any, x: Tensor) -> Tensor:
    return self.proj(x.mean(1, keepdim=True).expand_as(x))


BLOCK, ATTN, MLP = "encoder.blocks.1", "encoder.blocks.1.attn", "encoder.blocks.0.mlp"
PATCH, PROJ = "encoder.patch_embed", "encoder.patch_embed.proj"

METHODS: dict[str, Case] = {
    "block.forward": Case(forwards(BLOCK, attends_only)),
    "decoder's block.forward": Case(forwards("decoder.blocks.0", attends_only)),
    "attn.forward": Case(forwards(ATTN, mean_only)),
    "mlp.forward": Case(forwards(MLP, lambda self, x: self.fc2(self.fc1(x).tanh()))),
    "patch_embed.forward": Case(
        forwards(PATCH, lambda self, x: self.proj(x.abs()).flatten(2).transpose(1, 2))
    ),
    "norm.forward": Case(forwards("encoder.norm", lambda self, x: 1.5 * x)),
    "model.forward": Case(
        forwards(
            "",
            lambda self, x, mask, decode_mask=None: self.decoder(
                self.encoder_to_decoder(self.encoder(x, mask)), 2
            ),
        )
    ),
    "encoder.forward": Case(
        forwards("encoder", lambda self, x, mask: self.forward_features(-x, mask))
    ),
    "encoder.forward_features": Case(
        forwards("encoder", lambda self, x, mask: self.norm(self.patch_embed(x)[:, :4]))
    ),
    "decoder.forward": Case(forwards("decoder", lambda self, x, n: self.head(x[:, -n:]))),
    **{
        f"{path or 'model'}.{name} wrapped": Case(wraps(path, name))
        for path, name in [
            ("", "forward"),
            ("encoder", "forward"),
            ("encoder", "forward_features"),
            ("decoder", "forward"),
            (PATCH, "forward"),
            (PROJ, "forward"),
            (BLOCK, "forward"),
            (BLOCK + ".norm1", "forward"),
            (ATTN, "forward"),
            (ATTN + ".qkv", "forward"),
            (ATTN + ".proj", "forward"),
            (ATTN + ".attn_drop", "forward"),
            (MLP, "forward"),
            (MLP + ".fc1", "forward"),
            (MLP + ".act", "forward"),
            (BLOCK + ".drop_path", "forward"),
            ("encoder.norm", "forward"),
            ("encoder.head", "forward"),
            ("encoder_to_decoder", "forward"),
            ("decoder.norm", "forward"),
            ("decoder.head", "forward"),
        ]
    },
    "classifier's forward_features wrapped": Case(wraps("", "forward_features"), True),
    "classifier's forward wrapped": Case(wraps(""), True),
    "classifier's fc_norm.forward wrapped": Case(wraps("fc_norm"), True),
    "classifier's head.forward wrapped": Case(wraps("head"), True),
    "classifier's pos_drop.forward wrapped": Case(wraps("pos_drop"), True),
}

CLASSES: dict[str, Case] = {
    **{
        f"{kind}.{name}": Case(patches(kind, name), settings={"drop_path": 0.3})
        for kind, name in [
            ("Attention", "forward"),
            ("Mlp", "forward"),
            ("Block", "forward"),
            ("PatchEmbed", "forward"),
            ("DropPath", "forward"),
            ("PretrainVisionTransformerEncoder", "forward_features"),
            ("PretrainVisionTransformerEncoder", "forward"),
            ("PretrainVisionTransformerDecoder", "forward"),
            ("PretrainVisionTransformer", "forward"),
        ]
    },
    "VisionTransformer.forward": Case(patches("VisionTransformer"), True),
    "VisionTransformer.forward_features": Case(
        patches("VisionTransformer", "forward_features"), True
    ),
    **{
        f"torch's {kind.__name__}.forward": Case(patches_everywhere(kind))
        for kind in (nn.LayerNorm, nn.Linear, nn.Conv3d, nn.GELU, nn.Dropout, nn.Identity)
    },
    "a function of the file": Case(
        patches_function("_through", lambda inner: lambda module, x: inner(module, 1.5 * x))
    ),
    "checkpoint of the file": Case(
        patches_function("checkpoint", lambda _: lambda block, x, **_settings: block(1.5 * x)),
        settings={"with_cp": True},
    ),
}

MODULES: dict[str, Case] = {
    "patch_embed, wrapped": Case(sets("encoder", patch_embed=Scaled)),
    "patch_embed.proj, wrapped": Case(sets(PATCH, proj=Scaled)),
    "patch_embed.proj, other weights": Case(
        sets(PATCH, proj=seeded(lambda: nn.Conv3d(3, WIDTH, (2, 16, 16), (2, 16, 16))))
    ),
    "patch_embed.proj, without bias": Case(
        sets(PATCH, proj=seeded(lambda: nn.Conv3d(3, WIDTH, (2, 16, 16), (2, 16, 16), bias=False)))
    ),
    "patch_embed.proj, dilated": Case(
        sets(
            PATCH,
            proj=seeded(lambda: nn.Conv3d(3, WIDTH, (2, 8, 8), (2, 16, 16), dilation=(1, 2, 2))),
        )
    ),
    "patch_embed.proj, circular": Case(
        sets(
            PATCH,
            proj=seeded(
                lambda: nn.Conv3d(
                    3, WIDTH, (2, 16, 16), (2, 16, 16), padding=(0, 16, 0), padding_mode="circular"
                )
            ),
        ),
        raises=True,
    ),
    "encoder.norm, other eps": Case(sets("encoder", norm=norm(eps=0.5))),
    "encoder.norm, Identity": Case(sets("encoder", norm=lambda old: nn.Identity())),
    "encoder.norm, like RMSNorm": Case(sets("encoder", norm=lambda old: Unit(WIDTH))),
    "encoder.norm, without weights": Case(sets("encoder", norm=norm(elementwise_affine=False))),
    "encoder.norm, without bias": Case(sets("encoder", norm=norm(bias=False))),
    "decoder.norm, Identity": Case(sets("decoder", norm=lambda old: nn.Identity())),
    "decoder.norm, like RMSNorm": Case(sets("decoder", norm=lambda old: Unit(DECODER_WIDTH))),
    "block's norm, like RMSNorm": Case(sets(BLOCK, norm1=lambda old: Unit(WIDTH))),
    "block's norm, RMSNorm": Case(sets(BLOCK, norm2=lambda old: nn.RMSNorm(WIDTH))),
    "block's norm, other eps": Case(sets(BLOCK, norm1=norm(eps=0.5))),
    "block": Case(replaces_block),
    "block, wrapped": Case(
        lambda m: setattr(
            m.encoder, "blocks", nn.ModuleList([Beside(m.encoder.blocks[0]), m.encoder.blocks[1]])
        )
    ),
    "block, Identity": Case(lambda m: m.encoder.blocks.__setitem__(0, nn.Identity())),
    "block, torch's": Case(
        lambda m: m.encoder.blocks.__setitem__(
            0,
            seeded(
                lambda: nn.TransformerEncoderLayer(
                    WIDTH, 2, 64, 0.0, batch_first=True, norm_first=True
                )
            )(None),
        )
    ),
    "blocks, longer": Case(
        lambda m: later(m.encoder.blocks.append)(copy.deepcopy(m.encoder.blocks[0]))
    ),
    "blocks, shorter": Case(lambda m: m.encoder.blocks.__delitem__(0)),
    "blocks, none": Case(lambda m: setattr(m.encoder, "blocks", nn.ModuleList())),
    "blocks, one twice": Case(lambda m: m.encoder.blocks.__setitem__(1, m.encoder.blocks[0])),
    "blocks, other order": Case(
        lambda m: setattr(m.encoder, "blocks", nn.ModuleList(reversed(m.encoder.blocks)))
    ),
    "block's class": Case(subclasses_block),
    "attn, wrapped": Case(sets(BLOCK, attn=Beside)),
    "attn, Identity": Case(sets(BLOCK, attn=lambda old: nn.Identity())),
    "mlp, wrapped": Case(sets(BLOCK, mlp=Beside)),
    "mlp, Sequential": Case(
        sets(BLOCK, mlp=lambda old: nn.Sequential(old.fc1, nn.ReLU(), old.fc2))
    ),
    "act, ReLU": Case(sets(MLP, act=lambda old: nn.ReLU())),
    "act, GELU's tanh form": Case(sets(MLP, act=lambda old: nn.GELU("tanh"))),
    **{
        f"{path}.{name}, LoRA{' that begins as zero' * zero}": Case(
            sets(path, **{name: lambda old, zero=zero: LowRank(old, zero)})
        )
        for path, name in [
            (ATTN, "qkv"),
            (ATTN, "proj"),
            (MLP, "fc1"),
            (MLP, "fc2"),
            ("", "encoder_to_decoder"),
            ("decoder", "head"),
        ]
        for zero in (False, True)
    },
    "head, wrapped": Case(sets("decoder", head=Beside)),
    "head, Sequential": Case(
        sets("decoder", head=lambda old: nn.Sequential(nn.LayerNorm(DECODER_WIDTH), old))
    ),
    "encoder.head, Linear": Case(sets("encoder", head=seeded(lambda: nn.Linear(WIDTH, WIDTH)))),
    "encoder_to_decoder, Sequential": Case(
        sets("", encoder_to_decoder=lambda old: nn.Sequential(old, nn.LayerNorm(DECODER_WIDTH)))
    ),
    "encoder_to_decoder, with bias": Case(
        sets("", encoder_to_decoder=seeded(lambda: nn.Linear(WIDTH, DECODER_WIDTH)))
    ),
    "encoder, a copy": Case(sets("", encoder=copy.deepcopy)),
    "decoder, a copy": Case(sets("", decoder=copy.deepcopy)),
    "encoder, wrapped": Case(sets("", encoder=Scaled)),
    "drop_path, dropout": Case(sets(BLOCK, drop_path=lambda old: nn.Dropout(0.3))),
    "classifier's head": Case(sets("", head=seeded(lambda: nn.Linear(WIDTH, 3))), True),
    "classifier's head, Sequential": Case(
        sets("", head=lambda old: nn.Sequential(nn.GELU(), old)), True
    ),
    "classifier's head, Identity": Case(sets("", head=lambda old: nn.Identity()), True),
    "classifier's fc_norm, wrapped": Case(sets("", fc_norm=Beside), True),
    "classifier's fc_norm, None": Case(lambda m: setattr(m, "fc_norm", None), True),
    "classifier's norm": Case(sets("", norm=norm(eps=0.3)), True),
    "classifier's norm with a token": Case(
        sets("", norm=Beside), True, settings={"use_mean_pooling": False}
    ),
    "classifier's patch_embed": Case(sets("", patch_embed=Scaled), True),
    "classifier's pos_drop": Case(sets("", pos_drop=lambda old: nn.Dropout(0.2)), True),
    "classifier's head_dropout": Case(sets("", head_dropout=lambda old: nn.Dropout(0.2)), True),
}


ALL: dict[str, Case] = {
    **{f"method: {name}": one for name, one in METHODS.items()},
    **{f"class: {name}": one for name, one in CLASSES.items()},
    **{f"module: {name}": one for name, one in MODULES.items()},
}
