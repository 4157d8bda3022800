"""Masks as token indices: what the encoder sees, what is decoded, and what is in the loss.

The official code passes boolean masks around (True = masked); :meth:`Masks.from_bool` and
:meth:`Masks.to_bool` convert. Everything here has static sizes, so that a training step reads
nothing back from the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from videomae_fast.masks.checks import can_look, check_shapes, check_values
from videomae_fast.masks.grid import Grid
from videomae_fast.masks.spec import LossOver, MaskSpec
from videomae_fast.ops.mask_indices import compact, mask_indices


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
