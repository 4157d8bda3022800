"""How clips are masked, and the static sizes that follow of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import torch

from videomae_fast.masks.grid import Grid
from videomae_fast.ops.mask_indices import CELL, DECODER_KINDS, ENCODER_KINDS, running_cell_kept

if TYPE_CHECKING:
    from videomae_fast.recipes import schema

LossOver = Literal["invisible", "all"]
"""Decoded tokens in the loss: those that the encoder did not see, or all."""


@dataclass(frozen=True)
class Counts:
    """Static sizes of a batch of masks, and whether every clip fills them.

    Attributes:
        visible: V, tokens that the encoder sees.
        decoder: M, the size of the lists of tokens that are decoded.
        loss: P, the size of the lists of tokens in the loss.
        decoder_fixed: every clip has exactly M of them; if not, some lists end in padding.
        loss_fixed: every clip has exactly P of them; if not, some lists end in padding.
    """

    visible: int
    decoder: int
    loss: int
    decoder_fixed: bool
    loss_fixed: bool


@dataclass(frozen=True)
class MaskSpec:
    """How clips are masked. The default is VideoMAE V2's dual masking; decoder="none" is V1.

    Attributes:
        encoder: "tube" (one spatial mask for all time slots), "random" or "frame" (whole slots).
        encoder_ratio: share the encoder does not see, in (0, 1): ``int(ratio * S)`` positions of S
            per slot (tube), of all tokens (random), or slots (frame) are masked.
        decoder: "running-cell" (V2), "random", "frame", or "none": all that the encoder did not
            see is decoded.
        decoder_ratio: share that is not decoded: 0.25, 0.5 or 0.75 for the running cell.
        loss_over: "invisible" (decoded tokens that the encoder did not see) or "all" decoded ones.
        skip_seen: leave out mask tokens at positions the encoder saw. The official code feeds
            them to the decoder with weight 0 in the loss; without them the decoder's attention
            changes slightly and is faster. Off by default.

    Raises:
        ValueError: an unknown kind, or a ratio outside (0, 1).

    Source: VideoMAE V2 paper, section 3.2 and table 1; dataset/masking_generator.py.
    """

    encoder: Literal["tube", "random", "frame"] = "tube"
    encoder_ratio: float = 0.9
    decoder: Literal["running-cell", "none", "random", "frame"] = "running-cell"
    decoder_ratio: float = 0.5
    loss_over: LossOver = "invisible"
    skip_seen: bool = False

    def __post_init__(self) -> None:
        for name, kind, kinds in (
            ("encoder mask", self.encoder, ENCODER_KINDS),
            ("decoder mask", self.decoder, DECODER_KINDS),
            ("loss_over", self.loss_over, ("invisible", "all")),
        ):
            if kind not in kinds:
                raise ValueError(f"{name} {kind!r} is none of {', '.join(kinds)}")
        if not 0 < self.encoder_ratio < 1:
            raise ValueError(f"encoder mask ratio {self.encoder_ratio} is not between 0 and 1")
        if self.decoder != "none" and not 0 < self.decoder_ratio < 1:
            raise ValueError(
                f"decoder mask ratio {self.decoder_ratio} is not between 0 and 1; to decode "
                'everything that the encoder did not see, use decoder mask "none"'
            )
        if self.decoder == "running-cell" and (CELL * self.decoder_ratio) % 1:
            raise ValueError(
                f"a running cell masks 1, 2 or 3 of its 4 positions: decoder mask ratio must be "
                f"0.25, 0.5 or 0.75, not {self.decoder_ratio}"
            )

    def encoder_masked(self, grid: Grid) -> int:
        """Masked positions per slot (tube), in all (random) or masked slots (frame)."""
        return _masked("encoder", self.encoder, self.encoder_ratio, grid)

    def decoder_masked(self, grid: Grid) -> int:
        """Masked positions per cell (running cell), in all (random) or masked slots (frame)."""
        if self.decoder == "none":
            return 0
        if self.decoder == "running-cell":
            return int(CELL * self.decoder_ratio)
        return _masked("decoder", self.decoder, self.decoder_ratio, grid)

    def counts(self, grid: Grid) -> Counts:
        """Static sizes for a grid.

        Raises:
            ValueError: the grid is too small for the ratio: nothing would be masked, or seen.
        """
        return _counts(self, grid)


def mask_spec(masks: schema.Masks) -> MaskSpec:
    """How a configuration masks clips.

    Raises:
        ValueError: as :class:`MaskSpec`.
    """
    return MaskSpec(
        encoder=masks.encoder,
        encoder_ratio=masks.encoder_ratio,
        decoder=masks.decoder,
        decoder_ratio=masks.decoder_ratio,
        loss_over=masks.loss_over,
        skip_seen=masks.skip_seen,
    )


def _masked(who: str, kind: str, ratio: float, grid: Grid) -> int:
    n, what = {
        "tube": (grid.space, "positions per slot"),
        "random": (grid.tokens, "tokens"),
        "frame": (grid.slots, "time slots"),
    }[kind]
    masked = int(ratio * n)
    if not 0 < masked < n:
        raise ValueError(
            f"{who} mask {kind!r} with ratio {ratio} would mask {masked} of {n} {what}: "
            "choose a ratio that leaves some masked and some not, or a larger grid"
        )
    return masked


@lru_cache(maxsize=256)
def _counts(spec: MaskSpec, grid: Grid) -> Counts:
    n, space = grid.tokens, grid.space
    masked, hidden = spec.encoder_masked(grid), spec.decoder_masked(grid)
    visible = {
        "tube": (space - masked) * grid.slots,
        "random": n - masked,
        "frame": (grid.slots - masked) * space,
    }[spec.encoder]
    # Fewest and most decoded tokens, and of these the ones that the encoder sees
    if spec.decoder == "none":
        kept, seen = (n - visible, n - visible), (0, 0)
    elif spec.decoder == "random":
        kept = (n - hidden, n - hidden)
        seen = _overlap(visible, n - hidden, n)
    elif spec.decoder == "frame":
        slots = grid.slots - hidden
        kept = (slots * space, slots * space)
        if spec.encoder == "tube":
            seen = (slots * (space - masked),) * 2
        elif spec.encoder == "frame":
            low, high = _overlap(grid.slots - masked, slots, grid.slots)
            seen = (low * space, high * space)
        else:
            seen = _overlap(visible, kept[0], n)
    else:
        return _running_cell_counts(spec, grid, visible, hidden)
    return _as_counts(spec, visible, [(kept[0], *seen)])


def _overlap(a: int, b: int, n: int) -> tuple[int, int]:
    """Fewest and most common elements of subsets of sizes a and b of n elements."""
    return max(0, a + b - n), min(a, b)


def _running_cell_counts(spec: MaskSpec, grid: Grid, visible: int, hidden: int) -> Counts:
    patterns = torch.arange(CELL, device="cpu")
    kept = running_cell_kept(grid.slots, grid.height, grid.width, hidden, patterns)
    per_pattern = []
    for pattern in kept:
        total = int(pattern.sum())
        if spec.encoder == "random":
            low, high = _overlap(visible, total, grid.tokens)
        else:  # the encoder picks whole positions (tube) or whole slots (frame)
            picks = pattern.sum(0).flatten() if spec.encoder == "tube" else pattern.sum((1, 2))
            ordered, k = picks.sort().values, visible * len(picks) // grid.tokens
            low, high = int(ordered[:k].sum()), int(ordered[len(picks) - k :].sum())
        per_pattern.append((total, low, high))
    return _as_counts(spec, visible, per_pattern)


def _as_counts(spec: MaskSpec, visible: int, cases: list[tuple[int, int, int]]) -> Counts:
    """Sizes from (decoded, fewest seen, most seen) of every case that can occur."""
    invisible_most = max(total - low for total, low, _ in cases)
    invisible_least = min(total - high for total, _, high in cases)
    decoded_most = max(total for total, _, _ in cases)
    decoded_least = min(total for total, _, _ in cases)
    if spec.skip_seen:
        decoded_most, decoded_least = invisible_most, invisible_least
    over_all = spec.loss_over == "all"
    loss_most = decoded_most if over_all else invisible_most
    loss_least = decoded_least if over_all else invisible_least
    if loss_most == 0:
        raise ValueError(f"no token would ever be in the loss with {spec}")
    return Counts(
        visible=visible,
        decoder=decoded_most,
        loss=loss_most,
        decoder_fixed=decoded_most == decoded_least,
        loss_fixed=loss_most == loss_least,
    )
