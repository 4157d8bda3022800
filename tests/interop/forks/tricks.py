"""Changes that leave names, classes and sources alone, and still change what is computed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.interop.forks.changes import (
    ATTN,
    BLOCK,
    MLP,
    PROJ,
    Case,
    Scaled,
    official_module,
    part,
    scaled,
)
from tests.interop.forks.comparing import Change, Run, train
from tests.interop.forks.inputs import pretraining

Undo = Callable[[], None]


def classes(model: nn.Module) -> dict[str, Any]:
    """The names of the file that the model's classes are in."""
    return vars(sys.modules[official_module(model)])


def shadows(path: str, name: str, value: Callable[[Any], Any]) -> Change:
    """An attribute of the instance hides a module of the same name."""

    def change(model: Any) -> None:
        module = part(model, path)
        vars(module)[name] = value(getattr(module, name))

    return change


def on_class(kind: str, name: str, value: Callable[[Any], Any]) -> Change:
    """An attribute of a class; the function is called with the class."""

    def change(model: Any) -> None:
        found = classes(model)[kind]
        setattr(found, name, value(found))

    return change


def swaps_code(model: Any) -> None:
    """The function stays the same object, with other code in it."""

    def forward(self: Any, x: Any) -> Any:
        return self.fc2(self.fc1(x).relu())

    classes(model)["Mlp"].forward.__code__ = forward.__code__


def replaces(holder: Any, name: str, wrap: Callable[[Any], Any]) -> Change:
    """A function of torch is replaced for everybody, as profilers and simulators do."""

    def change(model: Any) -> Undo:
        before = getattr(holder, name)
        setattr(holder, name, wrap(before))
        return lambda: setattr(holder, name, before)

    return change


def scales(function: Any) -> Any:
    return lambda *args, **settings: scaled(function(*args, **settings))


def norms_called_otherwise(call: Any) -> Any:
    def called(self: Any, *args: Any, **settings: Any) -> Any:
        out = call(self, *args, **settings)
        return scaled(out) if isinstance(self, nn.LayerNorm) else out

    return called


class Backwards(nn.ModuleList):
    """A list of blocks that is gone through from its end."""

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(reversed(list(self._modules.values())))


class Weight(Tensor):
    """A weight that is another one wherever a function of torch sees it, as quantised ones are."""

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is not F.linear:
            return super().__torch_function__(function, types, args, kwargs or {})
        with torch._C.DisableTorchFunctionSubclass():
            plain = (one.as_subclass(Tensor) if isinstance(one, Weight) else one for one in args)
            x, weight, *bias = plain
            return function(x, scaled(weight), *bias, **(kwargs or {}))


def weight_of_a_kind(path: str) -> Change:
    def change(model: Any) -> None:
        module = part(model, path)
        weight = module.weight.detach().clone().as_subclass(Weight)
        module.weight = nn.Parameter(weight)

    return change


def made_of_another(path: str) -> Change:
    """The weight is computed from a parameter once and is none itself."""

    def change(model: Any) -> None:
        module = part(model, path)
        weight = module._parameters.pop("weight")
        module.base = nn.Parameter(weight.detach().clone())
        module.register_forward_pre_hook(lambda m, _: setattr(m, "weight", 2 * m.base))
        module.weight = 2 * module.base

    return change


def laid_out_otherwise(model: Any) -> None:
    weight = part(model, MLP).fc1.weight
    weight.data = weight.data.t().contiguous().t()


def in_other_dtype(path: str, dtype: torch.dtype) -> Change:
    return lambda model: part(model, path).to(dtype) and None


def plain_list(model: Any) -> None:
    blocks = list(model.encoder.blocks)
    del model.encoder.blocks
    model.encoder.blocks = blocks
    model.encoder.held = nn.ModuleList(blocks)


def shared_attention(model: Any) -> None:
    model.encoder.blocks[1].attn = model.encoder.blocks[0].attn


def old_backward_hook(model: Any) -> None:
    part(model, BLOCK + ".norm1").register_backward_hook(
        lambda module, inner, outer: tuple(None if g is None else g / 2 for g in inner)
    )


def other_namespace(model: Any) -> None:
    """`nn` of the model's file is no longer torch's."""
    names = classes(model)
    functional = SimpleNamespace(**{**vars(F), "normalize": F.normalize})
    names["nn"] = SimpleNamespace(**{**vars(nn), "functional": functional})


ALL: dict[str, Case] = {
    "an attribute hides attn": Case(shadows(BLOCK, "attn", Scaled)),
    "an attribute hides mlp": Case(shadows(BLOCK, "mlp", lambda mlp: lambda x: scaled(mlp(x)))),
    "an attribute hides fc1": Case(shadows(MLP, "fc1", Scaled)),
    "an attribute hides norm1": Case(shadows(BLOCK, "norm1", Scaled)),
    "an attribute hides the encoder's norm": Case(shadows("encoder", "norm", Scaled)),
    "an attribute hides proj": Case(shadows("encoder.patch_embed", "proj", Scaled)),
    "an attribute hides the decoder": Case(shadows("", "decoder", Scaled)),
    "a property hides norm1": Case(
        on_class("Block", "norm1", lambda kind: property(lambda self: self.norm2))
    ),
    "a property hides drop_path": Case(
        on_class("Block", "drop_path", lambda kind: property(lambda self: scaled))
    ),
    "a property hides the table": Case(
        on_class(
            "PretrainVisionTransformerEncoder",
            "norm",
            lambda kind: property(lambda self: self.blocks[0].norm1),
        )
    ),
    "__call__ of a class": Case(
        on_class(
            "Attention",
            "__call__",
            lambda kind: lambda self, *inputs: scaled(nn.Module.__call__(self, *inputs)),
        )
    ),
    "__getattr__ of a class": Case(
        on_class(
            "Block",
            "__getattr__",
            lambda kind: (
                lambda self, name: nn.Module.__getattr__(self, "norm2" if name == "norm1" else name)
            ),
        )
    ),
    "other code in the same function": Case(swaps_code),
    "another nn in the file": Case(other_namespace),
    "F.linear": Case(replaces(F, "linear", scales)),
    "F.layer_norm": Case(replaces(F, "layer_norm", scales)),
    "F.gelu": Case(replaces(F, "gelu", scales)),
    "F.dropout": Case(replaces(F, "dropout", scales)),
    "Tensor.softmax": Case(replaces(Tensor, "softmax", scales)),
    "torch.cat": Case(replaces(torch, "cat", scales)),
    "Module.__call__": Case(replaces(nn.Module, "__call__", norms_called_otherwise)),
    "blocks that go backwards": Case(
        lambda m: setattr(m.encoder, "blocks", Backwards(m.encoder.blocks))
    ),
    "blocks in a plain list": Case(plain_list),
    "a weight of a subclass": Case(weight_of_a_kind(MLP + ".fc1")),
    "a projection of a subclass": Case(weight_of_a_kind(ATTN + ".proj")),
    "a weight made of another": Case(made_of_another(MLP + ".fc1")),
    "a projection made of another": Case(made_of_another(PROJ)),
    "a weight laid out otherwise": Case(laid_out_otherwise),
    "one layer in bf16": Case(in_other_dtype(MLP + ".fc1", torch.bfloat16), raises=True),
    "one norm in fp64": Case(in_other_dtype(BLOCK + ".norm1", torch.float64), raises=True),
    "the embedding in bf16": Case(in_other_dtype(PROJ, torch.bfloat16), raises=True),
    "attention shared by two blocks": Case(shared_attention),
    "a backward hook of the old kind": Case(old_backward_hook),
}


class FunctionMode(TorchFunctionMode):
    """Sees every function of torch, and scales what GELU returns."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        return scaled(out) if function is F.gelu else out


class DispatchMode(TorchDispatchMode):
    """Sees every operation below autograd, and scales what LayerNorm returns."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.native_layer_norm.default:
            return (scaled(out[0]), *out[1:])
        return out


def within(context: Callable[[], Any]) -> Run:
    """Training within a context."""

    def run(model: Any) -> Any:
        with context():
            return train(model, pretraining)

    return run


class Deterministic:
    def __enter__(self) -> None:
        torch.use_deterministic_algorithms(True)

    def __exit__(self, *_: object) -> None:
        torch.use_deterministic_algorithms(False)


class DefaultDtype:
    def __enter__(self) -> None:
        torch.set_default_dtype(torch.float64)

    def __exit__(self, *_: object) -> None:
        torch.set_default_dtype(torch.float32)


CONTEXTS: dict[str, Run] = {
    "a mode for functions": within(FunctionMode),
    "a mode below autograd": within(DispatchMode),
    "detect_anomaly": within(torch.autograd.detect_anomaly),
    "deterministic algorithms": within(Deterministic),
    "fp64 by default": within(DefaultDtype),
    "a device for new tensors": within(lambda: torch.device("cpu")),
    "bf16 autocast of nothing": within(
        lambda: torch.autocast("cpu", torch.bfloat16, enabled=False)
    ),
}
