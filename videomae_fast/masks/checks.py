"""What must hold of the index lists of :class:`~videomae_fast.masks.batch.Masks`.

Kernels read by these indices without looking: one that is out of range reads other memory, and one
that points elsewhere gives a wrong loss without a word.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from videomae_fast.masks.grid import Grid

_LISTS = ("visible", "decoder", "loss_slot", "loss_index")


class IndexLists(Protocol):
    """The fields of :class:`~videomae_fast.masks.batch.Masks`, which says what they are."""

    @property
    def grid(self) -> Grid: ...
    @property
    def visible(self) -> Tensor: ...
    @property
    def decoder(self) -> Tensor: ...
    @property
    def loss_slot(self) -> Tensor: ...
    @property
    def loss_weight(self) -> Tensor | None: ...
    @property
    def decoder_count(self) -> Tensor | None: ...


def check_shapes(masks: IndexLists) -> None:
    """Checks shapes, dtypes and devices, which costs no device sync.

    Raises:
        ValueError: names the field.
    """
    for name in _LISTS:
        _check(
            name, getattr(masks, name), torch.int32, 2, "int32 [clips, tokens], at least 1 token"
        )
    batch, device = len(masks.visible), masks.visible.device
    optional = {"loss_weight": masks.loss_weight, "decoder_count": masks.decoder_count}
    if masks.loss_weight is not None:
        _check("loss_weight", masks.loss_weight, torch.float32, 2, "float32 [clips, tokens]")
    if masks.decoder_count is not None:
        _check("decoder_count", masks.decoder_count, torch.int32, 1, "int32 [clips]")
    given = {name: getattr(masks, name) for name in _LISTS} | optional
    for name, value in given.items():
        if value is None:
            continue
        if len(value) != batch:
            raise ValueError(f"masks: {name} has {len(value)} clips, visible {batch}")
        if value.device != device:
            raise ValueError(f"masks: {name} is on {value.device}, visible on {device}")
    for name in ("loss_index", "loss_weight"):
        value = given[name]
        if value is not None and value.shape != masks.loss_slot.shape:
            raise ValueError(
                f"masks: {name} is {list(value.shape)}, loss_slot {list(masks.loss_slot.shape)}"
            )
    lengths = (
        ("visible", masks.visible.shape[1], "tokens of the grid", masks.grid.tokens),
        ("decoder", masks.decoder.shape[1], "tokens of the grid", masks.grid.tokens),
        ("loss_slot", masks.loss_slot.shape[1], "entries of decoder", masks.decoder.shape[1]),
    )
    for name, length, of, most in lengths:
        if length > most:
            raise ValueError(f"masks: {name} has {length} entries per clip, more than {most} {of}")


def can_look(masks: IndexLists) -> bool:
    """Whether values can be read here without waiting for a device, or breaking a graph."""
    return all(
        type(getattr(masks, name)) is Tensor and getattr(masks, name).device.type == "cpu"
        for name in _LISTS
    )


def check_values(masks: IndexLists) -> None:
    """Checks every value, on the CPU: tensors on another device are copied there.

    Raises:
        ValueError: names the field, the clip and the place of the first that is wrong.
    """
    visible, decoder, slot, index = (getattr(masks, name).cpu().long() for name in _LISTS)
    batch, tokens = len(visible), masks.grid.tokens
    count = torch.full((batch,), decoder.shape[1], device="cpu")
    if masks.decoder_count is not None:
        count = masks.decoder_count.cpu().long()
        _refuse("decoder_count", count, (count < 0) | (count > decoder.shape[1]),
                f"is not within 0 ... {decoder.shape[1]}, the entries of decoder")  # fmt: skip
    used = torch.ones_like(slot, dtype=torch.bool)
    if masks.loss_weight is not None:
        weight = masks.loss_weight.detach().cpu()
        _refuse("loss_weight", weight, ~(weight >= 0) | weight.isinf(), "is no weight: 0 or more")
        used = weight > 0
    for name, value in (("visible", visible), ("decoder", decoder), ("loss_index", index)):
        _refuse(name, value, (value < 0) | (value >= tokens),
                f"is no token of the grid: 0 ... {tokens - 1}")  # fmt: skip
    _refuse("loss_slot", slot, (slot < 0) | (slot >= decoder.shape[1]),
            f"is no entry of decoder: 0 ... {decoder.shape[1] - 1}")  # fmt: skip
    _refuse("loss_slot", slot, used & (slot >= count[:, None]), "is padding of decoder")
    _refuse("loss_index", index, used & (decoder.gather(1, slot) != index),
            "is not the token that loss_slot points to in decoder")  # fmt: skip
    valid = torch.arange(decoder.shape[1], device="cpu") < count[:, None]
    everything = torch.ones_like(visible, dtype=torch.bool)
    _refuse("visible", visible, _repeated(visible, everything, tokens), "is there already")
    _refuse("decoder", decoder, _repeated(decoder, valid, tokens), "is there already")
    _refuse("loss_slot", slot, _repeated(slot, used, decoder.shape[1]), "is there already")


def _check(name: str, value: object, dtype: torch.dtype, dimensions: int, wanted: str) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"masks: {name} must be a tensor, {wanted}, not {type(value).__name__}")
    if value.dtype != dtype or value.ndim != dimensions or 0 in value.shape[1:]:
        raise ValueError(f"masks: {name} must be {wanted}, not {value.dtype} {list(value.shape)}")


def _refuse(name: str, value: Tensor, wrong: Tensor, what: str) -> None:
    """Raises for the first value [B] or [B, K] that is wrong."""
    if not wrong.any():
        return
    clip, *place = (int(number) for number in wrong.nonzero()[0])
    where = f" at place {place[0]}" if place else ""
    found = value[clip, *place].item()
    raise ValueError(f"masks: {name} of clip {clip} has {found}{where}, which {what}")


def _repeated(value: Tensor, counted: Tensor, size: int) -> Tensor:
    """bool [B, K]: which of the values [B, K] in 0 ... size - 1 come more than once in their row.

    counted: bool [B, K], those that are looked at.
    """
    times = torch.zeros((len(value), size), dtype=torch.int32, device="cpu")
    times.scatter_add_(1, value, counted.to(torch.int32))
    if times.numel() == 0 or int(times.max()) <= 1:
        return torch.zeros_like(counted)
    return counted & (times.gather(1, value) > 1)
