"""Other ways to use a model than a training step: inputs of all kinds, transforms of torch.func."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, jvp, vjp, vmap

from tests.interop.forks.comparing import Raised, Run, Step, Steps
from tests.interop.forks.inputs import clips, decode_mask, distance, mask


def values(compute: Callable[[Any], Any]) -> Run:
    """What a computation returns, each tensor compared as a gradient is."""

    def run(model: Any) -> Steps:
        torch.manual_seed(0)
        try:
            found = compute(model.eval())
        except Exception as error:
            return Raised(error)
        return [Step(0.0, {name: one.detach().clone() for name, one in named(found).items()})]

    return run


def named(found: Any, name: str = "out") -> dict[str, Tensor]:
    """All tensors of a nested result, by their place, and their dtypes and shapes."""
    if isinstance(found, Tensor):
        kind = f"{name} {found.dtype} {list(found.shape)}"
        return {kind: found.float()}
    parts = found.items() if isinstance(found, dict) else enumerate(found)
    return {key: one for at, part in parts for key, one in named(part, f"{name} {at}").items()}


def called(*inputs: Any, **words: Any) -> Run:
    """The output for these inputs."""
    return values(lambda model: model(*inputs, **words))


def with_input_gradient(model: Any) -> Any:
    given = clips().clone().requires_grad_()
    out = distance(model(given, mask()))
    return out, torch.autograd.grad(out, given)[0]


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def by_weights(model: nn.Module) -> Callable[[dict[str, Tensor]], Tensor]:
    """The loss as a function of the weights."""
    return lambda given: distance(functional_call(model, given, (clips(), mask())))


def by_clips(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda given: model(given, mask())


def directions(model: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(9)
    return {n: torch.randn(p.shape, generator=generator) for n, p in weights(model).items()}


def double_backward(model: Any) -> Any:
    """The gradient of the gradients' norm, as penalties and sharpness-aware methods take it."""
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(
        distance(model(clips(), mask())), parameters, create_graph=True, allow_unused=True
    )
    norm = sum(one.square().sum() for one in gradients if one is not None)
    found = torch.autograd.grad(norm, parameters, allow_unused=True)
    return [torch.zeros(()) if one is None else one for one in found]


def hessian_vector(model: Any) -> Any:
    """Forward over reverse."""
    return jvp(grad(by_weights(model)), (weights(model),), (directions(model),))


def forward_ad(model: Any) -> Any:
    import torch.autograd.forward_ad as fwd

    with fwd.dual_level():
        dual = fwd.make_dual(clips(), torch.ones_like(clips()))
        return list(fwd.unpack_dual(model(dual, mask())))


def per_clip_gradients(model: Any) -> Any:
    def of_one(given: dict[str, Tensor], clip: Tensor, seen: Tensor) -> Tensor:
        return functional_call(model, given, (clip[None], seen[None])).square().mean()

    # The mask's reshape depends on data: clips share one mask
    return vmap(grad(of_one), (None, 0, None))(weights(model), clips(), mask()[0])


def ensemble(model: Any) -> Any:
    """Two sets of weights at once."""
    stacked = {name: torch.stack([one, 1.1 * one]) for name, one in weights(model).items()}
    return vmap(lambda given: functional_call(model, given, (clips(), mask())))(stacked)


def other_weights(model: Any) -> Any:
    return by_weights(model)({name: 0.9 * one for name, one in weights(model).items()})


def under_autocast(model: Any) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        return model(clips(), mask()).float().round(decimals=1) * 0  # its dtype and shape


def inference(model: Any) -> Any:
    with torch.inference_mode():
        return model(clips(), mask())


def saved_elsewhere(model: Any) -> Any:
    """Saved tensors are packed and unpacked, as CPU offloading of activations does."""
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        loss = distance(model(clips(), mask()))
    return torch.autograd.grad(loss, list(model.parameters()), allow_unused=False)


def twice_through(model: Any) -> Any:
    """One graph, two backward passes."""
    loss = distance(model(clips(), mask()))
    parameters = list(model.parameters())
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    return [*first, *torch.autograd.grad(loss, parameters)]


def summed_over_two_calls(model: Any) -> Any:
    loss = distance(model(clips(), mask())) + distance(model(2 * clips(), ~mask()))
    return torch.autograd.grad(loss, list(model.parameters()))


def in_fp64(model: Any) -> Any:
    return copy.deepcopy(model).double()(clips().double(), mask())


TRANSFORMS: dict[str, Run] = {
    "functional_call": values(other_weights),
    "grad": values(lambda m: grad(by_weights(m))(weights(m))),
    "vjp of clips": values(lambda m: vjp(by_clips(m), clips())[1](torch.ones(3, 4, 1536))),
    "jvp of clips": values(lambda m: jvp(by_clips(m), (clips(),), (torch.ones_like(clips()),))),
    "jvp of weights": values(lambda m: jvp(by_weights(m), (weights(m),), (directions(m),))),
    "forward mode": values(forward_ad),
    "jacrev": values(lambda m: jacrev(lambda c: distance(m(c, mask())))(clips())),
    "forward over reverse": values(hessian_vector),
    "double backward": values(double_backward),
    "vmap over clips": values(
        lambda m: vmap(lambda c: m(c[None], mask()[:1]), randomness="same")(clips())
    ),
    "vmap of gradients": values(per_clip_gradients),
    "vmap over weights": values(ensemble),
    "gradient of clips": values(with_input_gradient),
    "autocast": values(under_autocast),
    "inference mode": values(inference),
    "saved tensors packed": values(saved_elsewhere),
    "two backward passes": values(twice_through),
    "two calls, one backward pass": values(summed_over_two_calls),
    "fp64": values(in_fp64),
}


def _uneven() -> Tensor:
    """Clips that differ in how many tokens are seen, by two in all: 3, 4 and 5 of 8."""
    return torch.arange(8) < torch.tensor([[3], [4], [5]])


INPUTS: dict[str, Run] = {
    "keywords": called(x=clips(), mask=mask(), decode_mask=decode_mask()),
    "decode_mask None": called(clips(), mask(), None),
    "larger clips": called(torch.ones(3, 3, 4, 48, 48), mask()),
    "larger clips and mask": called(
        torch.ones(3, 3, 4, 48, 48), torch.arange(18).expand(3, 18) < 9
    ),
    "larger clips, flat": called(torch.ones(3, 3, 4, 16, 64), mask()),
    "smaller clips": called(torch.ones(3, 3, 4, 16, 16), mask()),
    "more frames": called(torch.ones(3, 3, 8, 32, 32), mask()),
    "more frames and mask": called(torch.ones(3, 3, 8, 32, 32), torch.arange(16).expand(3, 16) < 8),
    "an odd number of frames": called(torch.ones(3, 3, 5, 32, 32), mask()),
    "fewer frames": called(torch.ones(3, 3, 2, 32, 32), mask()),
    "a pixel too many": called(torch.ones(3, 3, 4, 33, 33), mask()),
    "channels last": called(torch.ones(3, 4, 32, 32, 3), mask()),
    "frames first": called(torch.ones(3, 4, 3, 32, 32), mask()),
    "one colour": called(torch.ones(3, 1, 4, 32, 32), mask()),
    "four colours": called(torch.ones(3, 4, 4, 32, 32), mask()),
    "no batch": called(clips()[0], mask()[:1]),
    "an empty batch": called(clips()[:0], mask()[:0]),
    "a batch of one": called(clips()[:1], mask()[:1]),
    "fewer masks": called(clips(), mask()[:2]),
    "one mask": called(clips(), mask()[:1]),
    "more masks": called(clips(), torch.cat([mask(), mask()])),
    "integers": called(clips().int(), mask()),
    "fp64 clips": called(clips().double(), mask()),
    "fp16 clips": called(clips().half(), mask()),
    "bf16 clips": called(clips().bfloat16(), mask()),
    "strided clips": called(clips().transpose(3, 4), mask()),
    "expanded clips": called(clips()[:1].expand(3, -1, -1, -1, -1), mask()),
    "a longer mask": called(clips(), torch.cat([mask(), mask()[:, :2]], 1)),
    "a shorter mask": called(clips(), mask()[:, :6]),
    "a mask in two dimensions": called(clips(), mask().view(3, 2, 4)),
    "a mask with one column": called(clips(), mask()[:, :, None]),
    "a flat mask": called(clips(), mask().flatten()),
    "a float mask": called(clips(), mask().float()),
    "an integer mask": called(clips(), mask().long()),
    "an int32 mask": called(clips(), mask().int()),
    "a uint8 mask": called(clips(), mask().byte()),
    "indices for a mask": called(clips(), torch.arange(4).expand(3, 4)),
    "int32 indices for a mask": called(clips(), torch.arange(4, dtype=torch.int32).expand(3, 4)),
    "int32 indices for the encoder": values(
        lambda m: m.encoder(clips(), torch.arange(2, dtype=torch.int32).expand(3, 2))
    ),
    "no mask": called(clips()),
    "None for a mask": called(clips(), None),
    "an uneven mask": called(clips(), _uneven()),
    "everything hidden": called(clips(), torch.ones(3, 8, dtype=torch.bool)),
    "nothing hidden": called(clips(), torch.zeros(3, 8, dtype=torch.bool)),
    "nothing decoded": called(clips(), mask(), torch.ones(3, 8, dtype=torch.bool)),
    "everything decoded": called(clips(), mask(), torch.zeros(3, 8, dtype=torch.bool)),
    "seen tokens decoded": called(clips(), mask(), mask()),
    "an uneven decoder mask": called(clips(), mask(), _uneven()),
    "a float decoder mask": called(clips(), mask(), decode_mask().float()),
    "a longer decoder mask": called(clips(), mask(), torch.cat([decode_mask(), mask()[:, :2]], 1)),
    "a decoder mask in two dimensions": called(clips(), mask(), decode_mask().view(3, 2, 4)),
    "masks of two shapes": called(clips(), mask(), decode_mask()[:2]),
    "one too many": called(clips(), mask(), decode_mask(), 1),
    "numpy": called(clips().numpy(), mask()),
}

CLASSIFIER_INPUTS: dict[str, Run] = {
    "larger clips": called(torch.ones(3, 3, 4, 48, 48)),
    "more frames": called(torch.ones(3, 3, 8, 32, 32)),
    "fewer frames": called(torch.ones(3, 3, 2, 32, 32)),
    "flat clips": called(torch.ones(3, 3, 4, 16, 64)),
    "an odd number of frames": called(torch.ones(3, 3, 5, 32, 32)),
    "one colour": called(torch.ones(3, 1, 4, 32, 32)),
    "no batch": called(clips()[0]),
    "an empty batch": called(clips()[:0]),
    "fp64 clips": called(clips().double()),
    "strided clips": called(clips().transpose(3, 4)),
}
