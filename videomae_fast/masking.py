"""Masks as token indices: what the encoder sees, what is decoded, and what is in the loss.

The official code passes boolean masks around (True = masked); :meth:`Masks.from_bool` and
:meth:`Masks.to_bool` convert. Everything here has static sizes, so that a training step reads
nothing back from the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from videomae_fast.mask_checks import can_look, check_shapes, check_values
from videomae_fast.ops.mask_indices import (
    CELL,
    DECODER_KINDS,
    ENCODER_KINDS,
    compact,
    mask_indices,
    running_cell_kept,
)

LossOver = Literal["invisible", "all"]


@dataclass(frozen=True)
class Grid:
    """The token grid of a clip: time slots, rows, columns. Tokens are ordered t, then h, then w."""

    slots: int
    height: int
    width: int

    @property
    def space(self) -> int:
        """Positions of one slot."""
        return self.height * self.width

    @property
    def tokens(self) -> int:
        return self.slots * self.space

    def __ne__(self, other: object) -> bool:
        # object's own, which negates __eq__, fails in torch.compile where sizes are symbolic
        return not self == other

    @staticmethod
    def of(
        frames: int, image_size: int | tuple[int, int], tubelet_size: int, patch_size: int
    ) -> Grid:
        """The grid of clips of `frames` frames of `image_size` (side, or (height, width)) pixels.

        Raises:
            ValueError: the tubelet or the patch does not divide its size.
        """
        h, w = (image_size, image_size) if isinstance(image_size, int) else image_size
        for name, size, unit, what in (
            ("frames", frames, tubelet_size, "tubelet_size"),
            ("image height", h, patch_size, "patch_size"),
            ("image width", w, patch_size, "patch_size"),
        ):
            if size <= 0 or size % unit:
                raise ValueError(f"{name} {size} is not a positive multiple of {what} {unit}")
        return Grid(frames // tubelet_size, h // patch_size, w // patch_size)


@dataclass(frozen=True)
class Counts:
    """Static sizes of a batch of masks, and whether every clip fills them.

    Attributes:
        visible, decoder, loss: V, M, P, the sizes of the index lists.
        decoder_fixed, loss_fixed: every clip has exactly M (P) of them; if not, the lists of some
            clips end in padding.
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


@dataclass(frozen=True)
class Masks:
    """The masks of a batch of clips, as token indices in ascending token order (t, then h, then w).

    Attributes:
        grid: the token grid.
        visible: int32 [B, V], tokens that the encoder sees.
        decoder: int32 [B, M], tokens that the decoder gets a mask token for.
        loss_slot: int32 [B, P], which entries of `decoder` are in the loss.
        loss_index: int32 [B, P], their token positions: ``decoder.gather(1, loss_slot)``.
        loss_weight: fp32 [B, P], weights of the tokens in the loss; 0 marks padding where the
            number in the loss differs by clip. None: all 1.
        decoder_count: int32 [B], how many entries of `decoder` are valid where that differs by
            clip (running cell on an odd grid with a slot count that is no multiple of 4; skip_seen
            with random masks). None: all.

    Shapes, dtypes and devices are checked whenever masks are made; values, too, where they lie on
    the CPU. Masks that are made by hand on a GPU, or changed in place, :meth:`validate` checks.

    Raises:
        ValueError: names the field, and for a value the clip.
    """

    grid: Grid
    visible: Tensor
    decoder: Tensor
    loss_slot: Tensor
    loss_index: Tensor
    loss_weight: Tensor | None = None
    decoder_count: Tensor | None = None

    def __post_init__(self) -> None:
        if torch.compiler.is_compiling():
            return
        check_shapes(self)
        if can_look(self):
            check_values(self)

    @staticmethod
    def _made(**fields: Any) -> Masks:
        """Masks of values that this library's own op made, which nobody needs to look at."""
        if torch.compiler.is_compiling():
            return Masks(**fields)
        masks = object.__new__(Masks)
        for name, value in fields.items():
            object.__setattr__(masks, name, value)
        return masks

    def validate(self) -> Masks:
        """Checks every value, on any device, which it waits for.

        Tokens lie in the grid and come once each; ``loss_slot`` points into the valid part of
        ``decoder``, at the tokens of ``loss_index``; counts and weights are possible ones. Padding
        (weight 0, or beyond ``decoder_count``) has to lie in range only.

        Returns:
            These masks.

        Raises:
            ValueError: names the field, the clip and the place of the first value that is wrong.
        """
        check_shapes(self)
        check_values(self)
        return self

    def __len__(self) -> int:
        return self.visible.shape[0]

    @property
    def device(self) -> torch.device:
        return self.visible.device

    @staticmethod
    def sample(
        batch: int,
        grid: Grid,
        spec: MaskSpec | None = None,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> Masks:
        """Random masks for a batch of clips, without a device-to-host sync.

        Args:
            generator: draws one seed per clip; torch's default generator of its device otherwise.
            device: of the result; the generator's by default.

        Raises:
            ValueError: the grid does not allow the ratio.
        """
        if device is None:
            device = generator.device if generator is not None else "cpu"
        source = generator.device if generator is not None else device
        seeds = torch.randint(2**62, (batch,), generator=generator, device=source)
        return Masks.from_seeds(seeds, grid, spec, device=device)

    @staticmethod
    def from_seeds(
        seeds: Tensor,
        grid: Grid,
        spec: MaskSpec | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> Masks:
        """Masks that are a function of each clip's seed alone, the same on every device.

        Args:
            seeds: int64 [B].

        Raises:
            ValueError: the grid does not allow the ratio, or the seeds have a wrong shape or dtype.
        """
        spec = spec or MaskSpec()
        counts = spec.counts(grid)
        visible, decoder, decoder_count, loss_slot, loss_weight = mask_indices(
            seeds if device is None else seeds.to(device, non_blocking=True),
            slots=grid.slots,
            height=grid.height,
            width=grid.width,
            encoder=spec.encoder,
            encoder_masked=spec.encoder_masked(grid),
            decoder=spec.decoder,
            decoder_masked=spec.decoder_masked(grid),
            loss_over_all=spec.loss_over == "all",
            skip_seen=spec.skip_seen,
            visible_tokens=counts.visible,
            decoder_tokens=counts.decoder,
            loss_tokens=counts.loss,
        )
        return Masks._made(
            grid=grid,
            visible=visible,
            decoder=decoder,
            loss_slot=loss_slot,
            loss_index=decoder.gather(1, loss_slot.long()),
            loss_weight=None if counts.loss_fixed else loss_weight,
            decoder_count=None if counts.decoder_fixed else decoder_count,
        )

    @staticmethod
    def from_bool(
        encoder_mask: Tensor,
        decoder_mask: Tensor | None = None,
        *,
        grid: Grid | None = None,
        loss_over: LossOver = "invisible",
    ) -> Masks:
        """Masks of the official boolean convention: True = masked.

        Reads counts back from the device; build them on the CPU and move the result.

        Args:
            encoder_mask: bool [B, N] or [B, slots, height, width]; True = not seen by the encoder.
            decoder_mask: the same shape, True = not decoded; None decodes all that is not seen.
            grid: needed for [B, N].

        Raises:
            ValueError: shapes don't fit; clips differ in how many tokens the encoder sees or the
                decoder gets (the official code can't batch these either); nothing is in the loss.
        """
        if grid is None:
            if encoder_mask.ndim != 4:
                raise ValueError("from_bool needs the grid, or masks [B, slots, height, width]")
            grid = Grid(*encoder_mask.shape[1:])
        unseen = _as_flat_mask("encoder_mask", encoder_mask, grid)
        kept = (
            unseen if decoder_mask is None else ~_as_flat_mask("decoder_mask", decoder_mask, grid)
        )
        if kept.shape != unseen.shape:
            raise ValueError(f"{len(unseen)} encoder masks but {len(kept)} decoder masks")
        visible, _ = compact(~unseen, _one_count("the encoder sees", ~unseen))
        decoder, _ = compact(kept, _one_count("are decoded", kept))
        in_loss = unseen.gather(1, decoder.long())
        if loss_over == "all":
            in_loss = torch.ones_like(in_loss)
        counts = in_loss.sum(1)
        size = int(counts.max())
        if size == 0:
            raise ValueError("no decoded token is hidden from the encoder: nothing is in the loss")
        loss_slot, count = compact(in_loss, size)
        valid = torch.arange(size, device=count.device) < count[:, None]
        return Masks(
            grid=grid,
            visible=visible,
            decoder=decoder,
            loss_slot=loss_slot,
            loss_index=decoder.gather(1, loss_slot.long()),
            loss_weight=None if bool((counts == size).all()) else valid.to(torch.float32),
        )

    def to_bool(self) -> tuple[Tensor, Tensor]:
        """(encoder_mask, decoder_mask), bool [B, N] in the official convention: True = masked."""
        shape = (len(self), self.grid.tokens)
        encoder = torch.ones(shape, dtype=torch.bool, device=self.device)
        encoder.scatter_(1, self.visible.long(), False)
        decoder = torch.ones((shape[0], shape[1] + 1), dtype=torch.bool, device=self.device)
        position = self.decoder.long()
        if self.decoder_count is not None:  # padding goes to a column that is cut off
            slot = torch.arange(position.shape[1], device=self.device)
            position = torch.where(slot < self.decoder_count[:, None], position, self.grid.tokens)
        decoder.scatter_(1, position, False)
        return encoder, decoder[:, :-1]

    def weighted(self, clip_weight: Tensor) -> Masks:
        """These masks with each clip's loss weights multiplied by its own: how clips are left out.

        Args:
            clip_weight: [B], any real dtype or bool.

        Raises:
            ValueError: another number of weights than of clips.
        """
        if tuple(clip_weight.shape) != (len(self),):
            raise ValueError(f"{list(clip_weight.shape)} clip weights for {len(self)} clips")
        weight = clip_weight.to(self.device, torch.float32, non_blocking=True)[:, None]
        base = self.loss_weight
        weights = weight.expand(self.loss_slot.shape) if base is None else base * weight
        return self._with(loss_weight=weights.contiguous())

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Masks:
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Masks:
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> Masks:
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changed[field.name] = change(value)
        return self._with(**changed)

    def _with(self, **changed: Any) -> Masks:
        """The same masks but for some tensors that were made of theirs."""
        return Masks._made(
            **{field.name: getattr(self, field.name) for field in fields(self)} | changed
        )


def _as_flat_mask(name: str, mask: Tensor, grid: Grid) -> Tensor:
    flat = mask.flatten(1).to(torch.bool)
    if flat.shape[1] != grid.tokens:
        raise ValueError(f"{name} has {flat.shape[1]} positions per clip, the grid {grid.tokens}")
    return flat


def _one_count(what: str, mask: Tensor) -> int:
    counts = mask.sum(1)
    least, most = int(counts.min()), int(counts.max())
    if least != most or most == 0:
        raise ValueError(
            f"every clip of a batch must have the same number, above 0, of tokens that {what}; "
            f"here from {least} to {most}"
        )
    return most
