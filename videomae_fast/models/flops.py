"""Multiply-adds of one clip's forward pass, by part: the official code's and ours.

The convention is the papers' and fvcore's: one multiply-add counts once, and only matmuls count
(linear layers, the patch embedding, scores and weighted sums of attention), not softmax,
LayerNorm, GELU or additions. Arithmetic alone: nothing is run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from videomae_fast.masking import Counts, MaskSpec
from videomae_fast.models.config import MAEConfig

Implementation = Literal["official", "ours"]

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
        name: "R1", "R2" or "R4".
        what: in words.
        multiply_adds: of one clip's forward pass.
        exact: whether the function stays the same.
    """

    name: str
    what: str
    multiply_adds: int
    exact: bool


def flops(
    config: MAEConfig, spec: MaskSpec, implementation: Implementation = "official"
) -> dict[str, int]:
    """Multiply-adds of one clip's forward pass in pre-training, by part; the keys are ``PARTS``.

    "official" embeds every token and runs the whole decoder for every token. "ours" is what
    :class:`~videomae_fast.models.masked_autoencoder.MaskedAutoencoder` computes. Where counts
    differ by clip, those of the padded lists are taken: that is what is computed.

    Args:
        config: the model's shape.
        spec: the masks. ``skip_seen`` exists in ours only; the official count ignores it, as the
            official decoder gets a mask token for every decoded position.

    Raises:
        ValueError: the grid does not allow the mask ratios, or `implementation` is unknown.

    Source: models/modeling_pretrain.py of the official V2 code; VideoMAE V2 paper, table 1.
    """
    if implementation == "official":
        return _count(
            config, _official_counts(config, spec), visible_patches=False, loss_only=False
        )
    if implementation == "ours":
        return _count(config, spec.counts(config.grid), visible_patches=True, loss_only=True)
    raise ValueError(f'implementation {implementation!r} is neither "official" nor "ours"')


def savings(config: MAEConfig, spec: MaskSpec) -> list[Saving]:
    """What ours leaves out of the official forward pass, one after the other.

    They add up to the difference of the two totals of :func:`flops`.

    Raises:
        ValueError: the grid does not allow the mask ratios.
    """
    official, counts = _official_counts(config, spec), spec.counts(config.grid)
    totals = [
        sum(_count(config, of, visible_patches=patches, loss_only=loss).values())
        for of, patches, loss in (
            (official, False, False),
            (official, True, False),
            (official, True, True),
            (counts, True, True),
        )
    ]
    found = [
        Saving("R1", "only visible tokens are patch-embedded", totals[0] - totals[1], True),
        Saving(
            "R2",
            "queries, projection, MLP of the last block and head: tokens in the loss only",
            totals[1] - totals[2],
            True,
        ),
    ]
    if spec.skip_seen:
        what = "no mask tokens where the encoder sees; changes the function slightly"
        found.append(Saving("R4", what, totals[2] - totals[3], False))
    return found


def _official_counts(config: MAEConfig, spec: MaskSpec) -> Counts:
    return replace(spec, skip_seen=False).counts(config.grid)


def _count(
    config: MAEConfig, counts: Counts, *, visible_patches: bool, loss_only: bool
) -> dict[str, int]:
    width, narrow = config.width, config.decoder_width
    seen, length = counts.visible, counts.visible + counts.decoder
    embedded = seen if visible_patches else config.grid.tokens
    predicted = counts.loss if loss_only else counts.decoder
    linear, attention = _block(seen, seen, width, int(width * config.mlp_ratio))
    hidden = int(narrow * config.mlp_ratio)
    full = _block(length, length, narrow, hidden)
    last = _block(predicted, length, narrow, hidden) if loss_only else full
    return {
        "patch_embed": embedded * config.patch_values * width,
        "encoder_linear": config.depth * linear,
        "encoder_attention": config.depth * attention,
        "encoder_to_decoder": seen * width * narrow,
        "decoder_linear": (config.decoder_depth - 1) * full[0] + last[0],
        "decoder_attention": (config.decoder_depth - 1) * full[1] + last[1],
        "head": predicted * narrow * config.patch_values,
    }


def _block(queries: int, keys: int, width: int, hidden: int) -> tuple[int, int]:
    """(linear, attention) multiply-adds of one block; keys and values are made of `keys` tokens."""
    linear = 2 * queries * width * width + 2 * keys * width * width + 2 * queries * width * hidden
    return linear, 2 * queries * keys * width
