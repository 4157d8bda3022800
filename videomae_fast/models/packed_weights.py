"""Frozen models on a CPU: weights laid out once for the matmuls, GELU in their epilogue.

oneDNN brings a weight into blocks in each call, 4 % of a forward pass of ViT-B, and GELU's own pass
over the MLP's hidden values writes as much memory again as the matmul before it. Neither is needed
by what only looks at clips.
"""

from __future__ import annotations

import torch
from torch import nn

from videomae_fast.models.transformer import Attention, Block, Mlp
from videomae_fast.ops.linear import packed_weight, why_not_packed


def pack_weights(model: nn.Module, rows: int) -> str | None:
    """Packs the weights of a model's blocks, in place, layer by layer.

    From then on the model computes what it did (GELU's rounding aside), in fp32 on the CPU and
    without gradients, over whole clips. It can't be trained, saved, moved, or run under autocast.

    Args:
        model: with :class:`videomae_fast.models.transformer.Block` in it.
        rows: tokens of the usual forward pass; others work too.

    Returns:
        Why it was left as it is, in words; None where it was packed.
    """
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    reason = why_not_packed() or next(filter(None, map(_unfit, blocks)), None)
    if reason is not None:
        return reason
    for block in blocks:
        for part in (block.attn, block.mlp):
            _pack(part, rows)
        block.mlp.packed = True
    return None


def _unfit(block: Block) -> str | None:
    if block.training:
        return "the model is in training mode"
    if block.fp8 or block.sharded or block.mlp.fused:
        return "its blocks are in fp8, sharded or fused"
    if block.mlp.packed:
        return "its weights are packed already"
    for weight in block.parameters():
        if weight.device.type != "cpu" or weight.dtype != torch.float32:
            return f"its weights are {weight.dtype} on {weight.device}, not fp32 on the CPU"
    return None


def _pack(part: Attention | Mlp, rows: int) -> None:
    for module in part.children():
        if isinstance(module, nn.Linear):
            packed = packed_weight(module.weight, rows)
            module.weight = nn.Parameter(packed, requires_grad=False)
