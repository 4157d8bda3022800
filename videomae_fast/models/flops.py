"""Multiply-adds of one clip's forward pass, by part: the official code's and ours.

The convention is the papers' and fvcore's: one multiply-add counts once, and only matmuls count
(linear layers, the patch embedding, scores and weighted sums of attention), not softmax,
LayerNorm, GELU or additions. Arithmetic alone: nothing is run.

What ours computes once per batch and not once per clip (queries, keys and values of the mask tokens
in the first decoder block, one row for each position of the grid) counts by a clip's share of it:
divided by the batch and rounded up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from videomae_fast.masks import Counts, MaskSpec
from videomae_fast.models.config import MAEConfig

Implementation = Literal["official", "ours"]

BATCH = 128  # clips that share what is computed once, where nobody says otherwise

PARTS = (
    "patch_embed",
    "encoder_linear",
    "encoder_attention",
    "encoder_to_decoder",
    "decoder_linear",
    "decoder_attention",
    "head",
)


@dataclass(frozen=True)
class Saving:
    """Work that ours leaves out.

    Attributes:
        name: "R1", "R2", "R3" or "R4".
        what: in words.
        multiply_adds: of one clip's forward pass.
        exact: whether the function stays the same.
    """

    name: str
    what: str
    multiply_adds: int
    exact: bool


@dataclass(frozen=True)
class _LeftOut:
    """Which of the exact savings a count has: see :func:`savings`."""

    unseen_patches: bool = False
    last_block: bool = False
    first_block: bool = False


_EVERYTHING = _LeftOut(unseen_patches=True, last_block=True, first_block=True)


def flops(
    config: MAEConfig,
    spec: MaskSpec,
    implementation: Implementation = "official",
    *,
    batch: int = BATCH,
) -> dict[str, int]:
    """Multiply-adds of one clip's forward pass in pre-training, by part; the keys are ``PARTS``.

    "official" embeds every token and runs the whole decoder for every token. "ours" is what
    :class:`~videomae_fast.models.masked_autoencoder.MaskedAutoencoder` computes. Where counts
    differ by clip, those of the padded lists are taken: that is what is computed.

    Args:
        config: the model's shape.
        spec: the masks. ``skip_seen`` exists in ours only; the official count ignores it, as the
            official decoder gets a mask token for every decoded position.
        batch: clips of a forward pass, which share what ours computes once. Official: no matter.

    Raises:
        ValueError: the grid does not allow the mask ratios, `implementation` is unknown, or the
            batch is not positive.

    Source: models/modeling_pretrain.py of the official V2 code; VideoMAE V2 paper, table 1.
    """
    if implementation == "official":
        return _count(config, _official_counts(config, spec), _LeftOut(), batch)
    if implementation == "ours":
        return _count(config, spec.counts(config.grid), _EVERYTHING, batch)
    raise ValueError(f'implementation {implementation!r} is neither "official" nor "ours"')


def encoder_flops(config: MAEConfig) -> int:
    """Multiply-adds of one clip's forward pass through the encoder with all tokens, without a head.

    What fine-tuning and detection compute; heads are too small to count.
    """
    return sum(classifier_flops(config, 0).values())


def classifier_flops(config: MAEConfig, classes: int) -> dict[str, int]:
    """Multiply-adds of one clip's forward pass in classification: all tokens, and a head.

    Args:
        config: the model's shape; of its decoder nothing counts.
        classes: of the head.
    """
    linear, attention = _block(config.grid.tokens, config.grid.tokens, config.width, config.hidden)
    return {
        "patch_embed": config.grid.tokens * config.patch_values * config.width,
        "encoder_linear": config.depth * linear,
        "encoder_attention": config.depth * attention,
        "head": config.width * classes,
    }


def savings(config: MAEConfig, spec: MaskSpec, *, batch: int = BATCH) -> list[Saving]:
    """What ours leaves out of the official forward pass, one after the other.

    They add up to the difference of the two totals of :func:`flops`. R3 is less than nothing where
    a batch has fewer mask tokens than the grid has positions: at batch 1, with most masks.

    Raises:
        ValueError: the grid does not allow the mask ratios, or the batch is not positive.
    """
    official, counts = _official_counts(config, spec), spec.counts(config.grid)
    totals = [
        sum(_count(config, of, left_out, batch).values())
        for of, left_out in (
            (official, _LeftOut()),
            (official, _LeftOut(unseen_patches=True)),
            (official, _LeftOut(unseen_patches=True, last_block=True)),
            (official, _EVERYTHING),
            (counts, _EVERYTHING),
        )
    ]
    left = [before - after for before, after in pairwise(totals)]
    found = [
        Saving("R1", "only visible tokens are patch-embedded", left[0], True),
        Saving(
            "R2",
            "queries, projection, MLP of the last block and head: tokens in the loss only",
            left[1],
            True,
        ),
        Saving(
            "R3",
            f"QKV of mask tokens in the first decoder block: once per batch (of {batch})",
            left[2],
            True,
        ),
    ]
    if spec.skip_seen:
        what = "no mask tokens where the encoder sees; changes the function slightly"
        found.append(Saving("R4", what, left[3], False))
    return found


def _official_counts(config: MAEConfig, spec: MaskSpec) -> Counts:
    return replace(spec, skip_seen=False).counts(config.grid)


def _count(config: MAEConfig, counts: Counts, left_out: _LeftOut, batch: int) -> dict[str, int]:
    if batch < 1:
        raise ValueError(f"a batch of {batch} clips")
    width, narrow, depth = config.width, config.decoder_width, config.decoder_depth
    seen, length = counts.visible, counts.visible + counts.decoder
    embedded = seen if left_out.unseen_patches else config.grid.tokens
    predicted = counts.loss if left_out.last_block else counts.decoder
    linear, attention = _block(seen, seen, width, config.hidden)
    asking = [length] * (depth - 1) + [predicted if left_out.last_block else length]
    blocks = [_block(queries, length, narrow, config.decoder_hidden) for queries in asking]
    decoder_linear = sum(linear for linear, _ in blocks)
    if left_out.first_block:
        row = 3 * narrow * narrow
        own, shared = seen * row, -(-config.grid.tokens * row // batch)
        decoder_linear += own + shared - _qkv(asking[0], length, narrow)
    return {
        "patch_embed": embedded * config.patch_values * width,
        "encoder_linear": config.depth * linear,
        "encoder_attention": config.depth * attention,
        "encoder_to_decoder": seen * width * narrow,
        "decoder_linear": decoder_linear,
        "decoder_attention": sum(attention for _, attention in blocks),
        "head": predicted * narrow * config.patch_values,
    }


def _block(queries: int, keys: int, width: int, hidden: int) -> tuple[int, int]:
    """(linear, attention) multiply-adds of one block; keys and values are made of `keys` tokens."""
    projection, mlp = queries * width * width, 2 * queries * width * hidden
    return _qkv(queries, keys, width) + projection + mlp, 2 * queries * keys * width


def _qkv(queries: int, keys: int, width: int) -> int:
    return (queries + 2 * keys) * width * width
