"""Which blocks have queries, keys, values and MLP in fp8, and where they can't."""

from __future__ import annotations

from typing import Final

from torch import nn

from videomae_fast.errors import UsageError
from videomae_fast.models.transformer import Block
from videomae_fast.ops.fp8_linear import MULTIPLE

MINIMUM_WIDTH: Final = 1280
"""Of a block's tokens: ViT-H and ViT-g. Below, matmuls are so short that rounding their operands
costs what fp8 gains (expected; not measured)."""


def set_fp8(model: nn.Module, fp8: bool, *, minimum_width: int | None = None) -> None:
    """Lets a model's wide blocks have fp8 in qkv, fc1 and fc2 (:func:`ops.fp8_linear`), or none.

    Weights, gradients and checkpoints are as ever. The other linear layers, attention and blocks
    that are narrower, as decoders' are, stay as they are.

    Args:
        minimum_width: of a block's tokens; None: `MINIMUM_WIDTH`.

    Raises:
        UsageError: no block is that wide, or one has a width that 16 does not divide.
    """
    least = MINIMUM_WIDTH if minimum_width is None else minimum_width
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    wide = [block for block in blocks if block.attn.proj.in_features >= least]
    if fp8:
        _check(blocks, wide, least)
    for block in blocks:
        block.fp8 = block.attn.fp8 = block.mlp.fp8 = fp8 and block in wide


def _check(blocks: list[Block], wide: list[Block], least: int) -> None:
    if not wide:
        widest = max((block.attn.proj.in_features for block in blocks), default=0)
        raise UsageError(
            f"fp8 is for blocks at least {least} wide, as ViT-H's and ViT-g's encoders are, and "
            f"this model's are {widest} at most: leave it out"
        )
    for block in wide:
        for name, width in (
            ("tokens", block.attn.proj.in_features),
            ("MLP", block.mlp.fc1.out_features),
        ):
            if width % MULTIPLE:
                raise UsageError(
                    f"fp8 takes widths that are multiples of {MULTIPLE}, and a block's {name} "
                    f"are {width} wide: choose another width, or leave fp8 out"
                )
