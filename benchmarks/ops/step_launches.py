"""The launches of training steps at the official sizes: recorded, not listed by hand.

The ops are called as the models call them, with tensors that have shapes and strides but no values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.launches import Launch, recorded
from benchmarks.common.workload import Workload
from benchmarks.ops.cases import op_cases
from benchmarks.ops.launch_choice import changes
from videomae_fast import MAEConfig, MaskedAutoencoder, MaskSpec
from videomae_fast.models.matmul_parameters import matmul_parameters
from videomae_fast.ops.adamw import AdamWUpdate
from videomae_fast.ops.registry import REGISTRY
from videomae_fast.training.optimizer.shadows import Shadows

Call = tuple[str, str, Callable[[], tuple[Any, ...]]]
"""(where, op, a function that makes its arguments)."""

# Besides dual masking's running cell, which the step has: kinds of masks whose sizes differ.
MASKS = (
    MaskSpec(decoder="none"),
    MaskSpec(encoder="random", decoder="random"),
    MaskSpec(encoder="frame", decoder="frame"),
)


def step_launches(
    size: str, batch: int, dtype: torch.dtype, ops: Sequence[str] | None = None
) -> Iterator[tuple[str, Launch]]:
    """(where, launch) of each kernel of a training step with dual masking, forward and backward.

    Args:
        size: an official one.
        batch: clips.
        dtype: of activations.
        ops: names of the ops that are meant; None: all.
    """
    yield from _launches(_step(_workload(size, batch), dtype), ops)


def option_launches(
    size: str, batch: int, dtype: torch.dtype, ops: Sequence[str] | None = None
) -> Iterator[tuple[str, Launch]]:
    """The same of what a step has by options only, and of the classifier's attention.

    These are drop path and LayerScale, decoders whose clips have different numbers of tokens,
    losses with weights, without normalised targets or without flat tokens, other kinds of masks.
    """
    workload = _workload(size, batch)
    yield from _launches(_options(workload, dtype), ops)


def choice_launches(size: str, batch: int, dtype: torch.dtype) -> Iterator[tuple[str, Launch]]:
    """(where and what, launch) of what may be chosen for the encoder's attention: its candidates.

    Of backward those that leave the biases' sums too, as models have it.
    """
    workload = _workload(size, batch)
    dim = workload.config.width // workload.config.heads
    for case in op_cases(workload, dtype):
        if case.where == "encoder" and case.op in ("attention", "packed_attention_backward"):
            for change in changes(case, dim):
                with change.made():
                    call = (f"{case.name}, {change.name}", case.op, case.args)
                    found = list(_launches(iter([call]), None))
                yield from (each for each in found if "columns" not in each[1].name)


def update_launches(size: str) -> Iterator[tuple[str, Launch]]:
    """(what, launch) of an update with bf16 copies of the weights that matmuls read."""
    with torch.device("meta"):
        model = MaskedAutoencoder(MAEConfig.from_size(size))  # type: ignore[arg-type]
    shadows = Shadows(model, matmul_parameters(model))
    given = [(p, p.bfloat16()) for p in shadows.masters]
    rest = [p for p in model.parameters() if p.dtype == torch.float32]
    scalar, groups = torch.empty((), device="meta"), torch.empty(2, device="meta")
    options: dict[str, Any] = {
        "rates": groups, "decays": groups, "step": scalar, "scale": scalar, "skip": scalar,
        "betas": (0.9, 0.95), "eps": 1e-8,
    }  # fmt: skip
    for what, weights, copies in (
        ("with copies", [p for p, _ in given], [copy for _, copy in given]),
        ("without", rest, None),
    ):
        gradients = weights if copies is None else copies
        with recorded() as found:
            update = AdamWUpdate(
                weights, weights, weights, copies, [0] * len(weights), gradients[0].dtype
            )
            update(gradients, **options)
            update.write([FAR] * len(gradients))
        yield from ((f"update ({what})", launch) for launch in found)


FAR = 1 << 40  # an address as a GPU has them


def _workload(size: str, batch: int) -> Workload:
    return Workload(MAEConfig.from_size(size), batch, device="meta")  # type: ignore[arg-type]


def _launches(calls: Iterator[Call], ops: Sequence[str] | None) -> Iterator[tuple[str, Launch]]:
    for where, op, args in calls:
        if "triton" not in REGISTRY[op].backends or (ops and op not in ops):
            continue
        made = args()
        with recorded() as found:
            REGISTRY[op].backends["triton"].run(*made)
        yield from ((where, launch) for launch in found)


def _step(workload: Workload, dtype: torch.dtype) -> Iterator[Call]:
    yield from ((case.name, case.op, case.args) for case in op_cases(workload, dtype))
    yield _mask_call("a batch", workload, workload.spec("dual"))


def _options(workload: Workload, dtype: torch.dtype) -> Iterator[Call]:
    for case in op_cases(workload, dtype):
        for option, changed in _OPTIONS.get(case.op, {}).items():
            if case.where in _WHERE.get(case.op, (case.where,)):
                # Bound now: the names move on with the loops
                yield f"{case.name}, {option}", case.op, _changed(case.args, changed)
    yield from _classifier(workload, dtype)
    for spec in MASKS:
        yield _mask_call(f"{spec.encoder}, {spec.decoder}", workload, spec)


def _changed(args: Callable[[], tuple[Any, ...]], change: Callable[..., tuple[Any, ...]]) -> Any:
    return lambda: change(*args())


def _classifier(workload: Workload, dtype: torch.dtype) -> Iterator[Call]:
    """Attention over all tokens of a clip, as fine-tuning and testing have it."""
    config = workload.config
    shape = (workload.batch, config.grid.tokens, 3, config.heads, config.width // config.heads)

    def inputs() -> tuple[Tensor, ...]:
        return torch.empty(shape, dtype=dtype, device="meta").unbind(2)

    def backward() -> tuple[Any, ...]:
        query, key, value = inputs()
        out = torch.empty(query.shape, dtype=dtype, device="meta")
        lse = torch.empty((shape[0], shape[3], shape[1]), dtype=torch.float32, device="meta")
        return torch.empty_like(out), query, key, value, None, out, lse

    yield "attention (all tokens)", "attention", lambda: (*inputs(), None)
    yield "attention_backward (all tokens)", "attention_backward", backward


def _mask_call(where: str, workload: Workload, spec: MaskSpec) -> Call:
    grid = workload.config.grid
    counts = spec.counts(grid)

    def args() -> tuple[Any, ...]:
        return (
            workload.mask_seeds.to("meta"), grid.slots, grid.height, grid.width,
            spec.encoder, spec.encoder_masked(grid), spec.decoder, spec.decoder_masked(grid),
            spec.loss_over == "all", spec.skip_seen, counts.visible, counts.decoder, counts.loss,
        )  # fmt: skip

    return f"mask_indices ({where})", "mask_indices", args


# What an option changes among the arguments of an op, in the order of its backends.


def _counted(*args: Any) -> tuple[Any, ...]:
    """Attention of clips that have different numbers of keys."""
    first = 3 if args[3] is None else 4  # forward, backward
    count = torch.empty(args[0].shape[0], dtype=torch.int32, device="meta")
    return (*args[:first], count, *args[first + 1 :])


def _norm(*, scale: bool, factor: bool) -> Callable[..., tuple[Any, ...]]:
    def change(*args: Any) -> tuple[Any, ...]:
        x, delta, weight, bias, delta_bias, _, _, eps = args
        factors = x.new_empty(x.shape[0]) if factor else None
        return x, delta, weight, bias, delta_bias, weight if scale else None, factors, eps

    return change


def _norm_backward(*, scale: bool, factor: bool) -> Callable[..., tuple[Any, ...]]:
    def change(*args: Any) -> tuple[Any, ...]:
        *grads, stream, mean, rstd, weight, _, _, _, _, has_bias = args
        branch = (torch.empty_like(stream), weight, weight) if scale else (None, None, None)
        factors = stream.new_empty(stream.shape[0]) if factor else None
        return (*grads, stream, mean, rstd, weight, *branch, factors, has_bias)

    return change


def _loss(first: int, *, weighted: bool, normalize: bool, ignore_flat: bool) -> Any:
    """`first`: where the prediction stands, which frames, index, weight and settings follow."""

    def change(*args: Any) -> tuple[Any, ...]:
        index = args[first + 2]
        weight = torch.empty(index.shape, dtype=torch.float32, device="meta") if weighted else None
        cube, rest = args[first + 4 : first + 6], args[first + 8 :]
        return (*args[: first + 3], weight, *cube, normalize, ignore_flat, *rest)

    return change


def _losses(first: int) -> dict[str, Any]:
    return {
        "weights": _loss(first, weighted=True, normalize=True, ignore_flat=False),
        "weights, no flat tokens": _loss(first, weighted=True, normalize=True, ignore_flat=True),
        "weights, raw pixels": _loss(first, weighted=True, normalize=False, ignore_flat=False),
    }


_BRANCHES = {
    "drop path": {"scale": False, "factor": True},
    "LayerScale and drop path": {"scale": True, "factor": True},
}
_OPTIONS: dict[str, dict[str, Callable[..., tuple[Any, ...]]]] = {
    "add_layer_norm": {name: _norm(**option) for name, option in _BRANCHES.items()},
    "add_layer_norm_fp8": {name: _norm(**option) for name, option in _BRANCHES.items()},
    "add_layer_norm_backward": {
        name: _norm_backward(**option) for name, option in _BRANCHES.items()
    },
    "attention": {"counted": _counted},
    "attention_backward": {"counted": _counted},
    "pixel_mse": _losses(0),
    "pixel_mse_with_gradient": _losses(0),
    "pixel_mse_backward": _losses(1),
}
# Only encoders have drop path and LayerScale, only decoders have clips of different lengths.
_WHERE = {
    "add_layer_norm": ("encoder",),
    "add_layer_norm_fp8": ("encoder",),
    "add_layer_norm_backward": ("encoder",),
    "attention": ("decoder", "last decoder block"),
    "attention_backward": ("decoder", "last decoder block"),
}
