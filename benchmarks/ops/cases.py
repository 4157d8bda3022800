"""The ops of a training step at their real shapes, with the bytes each has to move.

Those of pre-training, and what an action detector has beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.workload import Workload
from benchmarks.ops.op_case import OpCase
from benchmarks.ops.view_cases import augment_case, crop_case, jitter_case, mix_case, resize_case
from videomae_fast import MAEConfig
from videomae_fast.models.fp8 import MINIMUM_WIDTH
from videomae_fast.ops import IMAGENET_MEAN, IMAGENET_STD
from videomae_fast.ops.quantize_rows import E4M3
from videomae_fast.ops.registry import REGISTRY

ATTENTION = REGISTRY["attention"]


def op_cases(workload: Workload, dtype: torch.dtype) -> list[OpCase]:
    """Every op of a step with dual masking, and of a detector's, forward and backward."""
    config, b, device = workload.config, workload.batch, workload.device
    masks = workload.masks("dual").to(device)
    frames = workload.frames.to(device)
    v, m, p = masks.visible.shape[1], masks.decoder.shape[1], masks.loss_index.shape[1]
    d, values, item = config.decoder_width, config.patch_values, dtype.itemsize
    cube = (config.tubelet_size, config.patch_size)
    pixels = config.tubelet_size * config.patch_size**2  # of a colour, in a target's statistics

    def random(*shape: int, of: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, dtype=of, device=device)

    table = random(config.grid.tokens, d, of=torch.float32)
    token = random(d, of=torch.float32)
    n, qkv = config.grid.tokens, 3 * d  # rows that all clips share, and their width
    one = torch.ones((), device=device)
    settings = (*cube, True, False)
    cases = [
        crop_case(workload),
        augment_case(workload),
        mix_case(workload, random),
        resize_case(workload),
        jitter_case(workload),
        OpCase(
            "patch_gather",
            "visible tokens",
            lambda: (frames, masks.visible, *cube, list(IMAGENET_MEAN), list(IMAGENET_STD), dtype),
            b * v * values * (1 + item),
        ),
        OpCase(
            "decoder_assembly",
            "decoder",
            lambda: (random(b, v, d), token, table, masks.visible, masks.decoder),
            b * (2 * v + m) * d * item,
        ),
        OpCase(
            "decoder_assembly_backward",
            "decoder",
            lambda: (random(b, v + m, d), v, torch.float32),
            b * (2 * v + m) * d * item,
            terms=b * m,
        ),
        OpCase(
            "append_rows",
            "first decoder block",
            lambda: (random(b, v, qkv), random(n, qkv), masks.decoder),
            (b * (2 * v + m) + n) * qkv * item,
        ),
        OpCase(
            "append_rows_backward",
            "first decoder block",
            lambda: (random(b, v + m, qkv), masks.decoder, n),
            (b * m + n) * qkv * item,
        ),
        OpCase(
            "token_gather",
            "last decoder block",
            lambda: (random(b, v + m, d), masks.loss_slot + v),
            2 * b * p * d * item,
        ),
        OpCase(
            "token_scatter",
            "last decoder block, backward",
            lambda: (random(b, p, d), masks.loss_slot + v, v + m),
            b * (p + v + m) * d * item,
        ),
        OpCase(
            "pixel_mse",
            "tokens in the loss",
            lambda: (random(b, p, values), frames, masks.loss_index, None, *settings),
            b * p * values * (1 + item),
            terms=pixels,
        ),
        OpCase(
            "pixel_mse_with_gradient",
            "tokens in the loss",
            lambda: (random(b, p, values), frames, masks.loss_index, None, *settings, 1 / (b * p)),
            b * p * values * (1 + 2 * item),
            terms=pixels,
        ),
        OpCase(
            "pixel_mse_backward",
            "tokens in the loss",
            lambda: (one, random(b, p, values), frames, masks.loss_index, None, *settings),
            b * p * values * (1 + 2 * item),
            terms=pixels,
        ),
    ]
    for where, rows, width in (("encoder", v, config.width), ("decoder", v + m, d)):
        hidden = int(width * config.mlp_ratio)
        if torch.device(device).type != "cpu":
            hidden += -hidden % 8  # as the models pad it
        cases += _block_cases(where, (b, rows, width), hidden, dtype, random)
        if where == "encoder" and _has_fp8(config):
            cases += _fp8_cases(where, (b, rows, width), hidden, dtype, random)
    places = [("encoder", v, v, config.heads, config.width)]
    for where, queries in (("decoder", v + m), ("last decoder block", p)):
        places.append((where, queries, v + m, config.decoder_heads, d))
    for where, queries, keys, heads, width in places:
        cases += _attention_cases(where, b, queries, keys, heads, width, random)
        cases += _packed_cases(where, b, queries, keys, heads, width, random)
    return cases + _detector_cases(workload, random)


def _has_fp8(config: MAEConfig) -> bool:
    """Whether models of this size may have it; so have tests' shapes, smaller than any model's."""
    return config.width >= MINIMUM_WIDTH or config.width < 192


def _fp8_cases(
    where: str,
    shape: tuple[int, int, int],
    hidden: int,
    dtype: torch.dtype,
    random: Callable[..., Tensor],
) -> list[OpCase]:
    b, rows, width = shape
    full, wide, weights = b * rows * width, b * rows * hidden, hidden * width
    item = dtype.itemsize

    def vector(n: int) -> Tensor:
        return random(n, of=torch.float32)

    def weight() -> Tensor:
        return random(hidden, width, of=torch.float32)

    def linear_args() -> tuple[Any, ...]:
        x = random(*shape)
        values = torch.empty_like(x, dtype=E4M3).fill_(1.5)
        return x, values, torch.ones_like(x[..., 0], dtype=torch.float32), weight(), None

    return [
        OpCase(
            "add_layer_norm_fp8",
            where,
            lambda: (
                random(*shape),
                random(*shape),
                *(vector(width) for _ in range(3)),
                None,
                None,
                1e-6,
            ),
            full * (4 * item + 1),
            terms=width,
        ),
        OpCase(
            "bias_gelu_fp8",
            where,
            lambda: (random(b, rows, hidden), vector(hidden)),
            wide * (2 * item + 1),
        ),
        OpCase(
            "quantize_rows",
            f"{where}, fc1's gradient",
            lambda: (random(b, rows, hidden), vector(hidden)),
            wide * (item + 1),
        ),
        OpCase("quantize_rows", f"{where}, fc1's weight", lambda: (weight(), None), weights * 5),
        OpCase(
            "quantize_rows",
            f"{where}, fc2's copied weight",
            lambda: (random(width, hidden), None),
            weights * (item + 1),
        ),
        OpCase(
            "fp8_linear",
            f"{where}, fc1",
            linear_args,
            full + wide * item + weights * 4,
            2 * full * hidden,
        ),
        OpCase(
            "fp8_linear_backward",
            f"{where}, fc1",
            lambda: (random(b, rows, hidden), random(*shape), weight(), True, False),
            (2 * full + wide) * item + weights * 8,
            4 * full * hidden,
        ),
    ]


def _detector_cases(workload: Workload, random: Callable[..., Tensor]) -> list[OpCase]:
    """Fine-tuning of an action detector: 3 people a clip, within its frame."""
    config, batch, device = workload.config, workload.batch, workload.device
    grid, dim, count = config.grid, config.width, 3 * workload.batch
    cells = grid.slots, grid.height, grid.width
    settings = (7, 1 / config.patch_size, 0, False)

    def args() -> tuple[Any, ...]:
        # Not over the edges, where bins are equal and either may be called the largest
        extent = torch.tensor([grid.width - 1, grid.height - 1], device=device) * config.patch_size
        ends = torch.rand(count, 2, 2, device=device) * extent
        boxes = torch.cat([ends.amin(1), ends.amax(1)], 1)
        clip = torch.arange(count, device=device) // 3
        return (random(batch, grid.tokens, dim), boxes, clip, *cells, *settings)

    def backward_args() -> tuple[Any, ...]:
        tokens, boxes, clip, *how = args()
        kept = REGISTRY["roi_features"].backends["reference"].run(tokens, boxes, clip, *how)[1:]
        return (random(count, dim), clip, *kept, batch, grid.slots)

    item = random(1).element_size()
    moved = batch * grid.tokens * dim * item + count * dim * (item + 4)
    return [
        OpCase("roi_features", "detector", args, moved, terms=grid.slots * grid.space),
        OpCase("roi_features_backward", "detector", backward_args, moved, terms=3, forward=args),
    ]


def _attention_cases(
    where: str,
    batch: int,
    queries: int,
    keys: int,
    heads: int,
    width: int,
    random: Callable[..., Tensor],
) -> list[OpCase]:
    """From views of packed matmuls, as the models call it."""
    dim = width // heads

    def inputs() -> tuple[Tensor, Tensor, Tensor]:
        if queries == keys:
            query, key, value = random(batch, keys, 3, heads, dim).unbind(2)
        else:
            query = random(batch, queries, heads, dim)
            key, value = random(batch, keys, 2, heads, dim).unbind(2)
        return query, key, value

    def backward_args() -> tuple[Any, ...]:
        query, key, value = inputs()
        out, lse = ATTENTION.backends["reference"].run(query, key, value, None)
        return random(*out.shape), query, key, value, None, out, lse

    item = random(1).element_size()
    asked, held = batch * queries * width * item, batch * keys * width * item
    products = 4 * batch * queries * keys * width  # of forward's two products; backward has five
    return [
        OpCase("attention", where, lambda: (*inputs(), None), 2 * asked + 2 * held, products),
        OpCase("attention_backward", where, backward_args, 4 * asked + 4 * held, products * 5 // 2),
    ]


def _packed_cases(
    where: str,
    batch: int,
    queries: int,
    keys: int,
    heads: int,
    width: int,
    random: Callable[..., Tensor],
) -> list[OpCase]:
    """The same with one gradient and those of the biases, as the models call it."""
    dim, apart = width // heads, queries != keys

    def inputs() -> tuple[Any, ...]:
        packed = random(batch, keys, 2 if apart else 3, heads, dim)
        query = random(batch, queries, heads, dim) if apart else None
        return packed, query, *(random(width, of=torch.float32) for _ in range(2)), None

    def backward_args() -> tuple[Any, ...]:
        given = inputs()
        out, lse = REGISTRY["packed_attention"].backends["reference"].run(*given)
        return (random(*out.shape), *given, out, lse, True, True)

    def gradients() -> tuple[Any, ...]:
        shapes = [(batch, count, heads, dim) for count in (queries, keys, keys)]
        return (*(random(*shape) for shape in shapes), *inputs()[2:4], apart)

    def biases() -> tuple[Any, ...]:
        q_bias, v_bias = inputs()[2:4]
        return v_bias, None if apart else q_bias, random(1).dtype

    item = random(1).element_size()
    asked, held = batch * queries * width * item, batch * keys * width * item
    products = 4 * batch * queries * keys * width
    backward = 4 * asked + 4 * held
    rows = batch * max(queries, keys)
    given, parts = (1, 2) if apart else (2, 3)  # keys have no bias: theirs is zeros
    return [
        OpCase("packed_attention", where, inputs, 2 * asked + 2 * held, products),
        OpCase(
            "packed_attention_backward", where, backward_args, backward, products * 5 // 2, rows
        ),
        OpCase("packed_join", where, gradients, 4 * held + (1 if apart else 2) * asked, terms=rows),
        OpCase("packed_bias", where, biases, (given * 4 + parts * item) * width),
    ]


def _block_cases(
    where: str,
    shape: tuple[int, int, int],
    hidden: int,
    dtype: torch.dtype,
    random: Callable[..., Tensor],
) -> list[OpCase]:
    b, rows, width = shape
    full, wide = b * rows * width * dtype.itemsize, b * rows * hidden * dtype.itemsize

    def vector(n: int) -> Tensor:
        return random(n, of=torch.float32)

    def backward_args() -> tuple[Any, ...]:
        stream = random(*shape)
        variance, mean = torch.var_mean(stream.float(), -1, correction=0)
        rstd = (variance + 1e-6).rsqrt()
        grads = random(*shape), random(*shape)
        return (*grads, stream, mean, rstd, vector(width), None, None, None, None, True)

    return [
        OpCase(
            "add_layer_norm",
            where,
            lambda: (
                random(*shape),
                random(*shape),
                vector(width),
                vector(width),
                vector(width),
                None,
                None,
                1e-6,
            ),
            4 * full,
            terms=width,
        ),
        OpCase("add_layer_norm_backward", where, backward_args, 4 * full, terms=b * rows),
        OpCase(
            "linear",
            f"{where}, fc1",
            lambda: (random(b, rows, width), random(hidden, width), None),
            full + wide + hidden * width * dtype.itemsize,
            2 * b * rows * width * hidden,
        ),
        OpCase(
            "linear_backward",
            f"{where}, fc1",
            lambda: (
                random(b, rows, hidden),
                random(b, rows, width),
                random(hidden, width),
                True,
                False,
            ),
            2 * (full + wide + hidden * width * dtype.itemsize),
            4 * b * rows * width * hidden,
        ),
        OpCase(
            "gelu_mlp",
            where,
            lambda: (
                random(b, rows, width),
                random(hidden, width),
                vector(hidden),
                random(width, hidden),
            ),
            2 * full + 3 * wide + 2 * hidden * width * dtype.itemsize,
            4 * b * rows * width * hidden,
        ),
        OpCase(
            "gelu_mlp_backward",
            where,
            lambda: (
                random(b, rows, width),
                random(b, rows, width),
                random(hidden, width),
                vector(hidden),
                random(width, hidden),
                random(b, rows, hidden),
                random(b, rows, hidden),
                True,
            ),
            4 * full + 5 * wide + 4 * hidden * width * dtype.itemsize,
            8 * b * rows * width * hidden,
            terms=b * rows,
        ),
        OpCase("bias_gelu", where, lambda: (random(b, rows, hidden), vector(hidden)), 2 * wide),
        OpCase(
            "bias_gelu_backward",
            where,
            lambda: (random(b, rows, hidden), random(b, rows, hidden), vector(hidden)),
            3 * wide,
            terms=b * rows,
        ),
    ]
