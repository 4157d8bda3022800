"""Masks made by hand: what would give a wrong loss is refused, by field and clip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from videomae_fast import Grid, Masks, MaskSpec

GRID = Grid(4, 4, 4)  # 64 tokens


def made(spec: MaskSpec | None = None, batch: int = 3) -> Masks:
    spec = spec or MaskSpec(encoder_ratio=0.5)
    return Masks.sample(batch, GRID, spec, generator=torch.Generator().manual_seed(3))


def uneven() -> Masks:
    """With padding in ``decoder`` and in the loss."""
    masks = made(MaskSpec("random", 0.5, "random", 0.5, skip_seen=True), 8)
    assert masks.decoder_count is not None
    assert masks.loss_weight is not None
    return masks


def put(field: str, clip: int, place: int, value: float) -> Callable[[Masks], dict[str, Tensor]]:
    def change(masks: Masks) -> dict[str, Tensor]:
        changed = getattr(masks, field).clone()
        changed[clip, place] = value
        return {field: changed}

    return change


WRONG = [
    (put("loss_slot", 2, 5, -1), r"loss_slot of clip 2 has -1 at place 5, which is no entry of d"),
    (put("loss_slot", 1, 0, 32), r"loss_slot of clip 1 has 32 at place 0, which is no entry of de"),
    (put("visible", 0, 3, 64), r"visible of clip 0 has 64 at place 3, which is no token of the g"),
    (put("decoder", 2, 1, -7), r"decoder of clip 2 has -7 at place 1, which is no token of the gr"),
    (put("loss_index", 1, 2, 99), r"loss_index of clip 1 has 99 at place 2, which is no token"),
    (put("loss_index", 1, 2, 0), r"loss_index of clip 1 has 0 at place 2, which is not the token"),
    (
        lambda masks: {"visible": masks.visible[:, [0, 0, *range(2, masks.visible.shape[1])]]},
        r"visible of clip 0 has \d+ at place 0, which is there already",
    ),
    (
        lambda masks: {
            name: getattr(masks, name)[:, [1, 1, *range(2, masks.loss_slot.shape[1])]]
            for name in ("loss_slot", "loss_index")
        },
        r"loss_slot of clip 0 has \d+ at place 0, which is there already",
    ),
    (lambda masks: {"loss_slot": masks.loss_slot.long()}, r"loss_slot must be int32 .*torch.int64"),
    (lambda masks: {"decoder": masks.decoder[0]}, r"decoder must be int32 \[clips, tokens\]"),
    (lambda masks: {"visible": masks.visible[:, :0]}, r"visible must be int32.*at least 1 token"),
    (lambda masks: {"visible": masks.visible.tolist()}, r"visible must be a tensor.*not list"),
    (lambda masks: {"decoder": masks.decoder[:2]}, r"decoder has 2 clips, visible 3"),
    (lambda masks: {"loss_slot": masks.loss_slot[:, 1:]}, r"loss_index is \[3, \d+\], loss_slot"),
    (
        lambda masks: {"grid": Grid(1, 4, 4)},
        r"visible has 32 entries per clip, more than 16 tokens",
    ),
    (
        lambda masks: {"loss_weight": torch.ones(masks.loss_slot.shape, dtype=torch.float64)},
        r"loss_weight must be float32",
    ),
    (
        lambda masks: {"loss_weight": torch.full(masks.loss_slot.shape, torch.nan)},
        r"loss_weight of clip 0 has nan at place 0, which is no weight",
    ),
    (
        lambda masks: {"loss_weight": torch.full(masks.loss_slot.shape, -1.0)},
        r"loss_weight of clip 0 has -1.0 at place 0, which is no weight",
    ),
    (
        lambda masks: {"decoder_count": torch.tensor([32, 33, 1], dtype=torch.int32)},
        r"decoder_count of clip 1 has 33, which is not within 0 \.\.\. 32",
    ),
    (
        lambda masks: {"decoder_count": torch.tensor([32, 32, 1], dtype=torch.int32)},
        r"loss_slot of clip 2 has \d+ at place \d+, which is padding of decoder",
    ),
    (lambda masks: {"loss_index": masks.loss_index.to("meta")}, r"loss_index is on meta, visible"),
]


@pytest.mark.parametrize(("change", "told"), WRONG)
def test_what_would_give_a_wrong_loss_is_refused(
    change: Callable[[Masks], dict[str, Any]], told: str
) -> None:
    masks = made()
    changed = change(masks)
    with pytest.raises(ValueError, match=f"^masks: {told}"):
        replace(masks, **changed)


def test_changes_in_place_are_found_by_validate() -> None:
    masks = made()
    assert masks.validate() is masks
    masks.loss_slot[1, 3] = -1
    with pytest.raises(ValueError, match="loss_slot of clip 1 has -1 at place 3"):
        masks.validate()


def test_padding_may_hold_anything_within_range() -> None:
    masks = uneven()
    clip = int(masks.decoder_count.argmin())  # type: ignore[union-attr]
    count = int(masks.decoder_count[clip])  # type: ignore[index]
    assert count < masks.decoder.shape[1]
    decoder, index, slot = (x.clone() for x in (masks.decoder, masks.loss_index, masks.loss_slot))
    decoder[clip, count:] = decoder[clip, 0]
    padding = masks.loss_weight[clip] == 0  # type: ignore[index]
    assert padding.any()
    index[clip, padding] = 63
    slot[clip, padding] = decoder.shape[1] - 1
    changed = {"decoder": decoder, "loss_index": index, "loss_slot": slot}
    replace(masks, **changed).validate()
    decoder[clip, count - 1] = decoder[clip, 0]
    with pytest.raises(ValueError, match=f"of clip {clip} has"):
        replace(masks, **changed)


def test_what_the_library_makes_is_valid() -> None:
    for masks in (made(), uneven(), made(MaskSpec(encoder_ratio=0.5, decoder="none"))):
        masks.validate()
        masks.weighted(torch.tensor([0.0, 0.5, *[1.0] * (len(masks) - 2)])).validate()
        Masks.from_bool(*made().to_bool(), grid=GRID).validate()


def test_checks_do_not_depend_on_the_default_device() -> None:
    masks = uneven()
    with torch.device("meta"):
        masks.validate()
        replace(masks)


def test_values_that_are_not_on_the_cpu_are_not_waited_for() -> None:
    """Reading a value of a meta tensor raises, as it would make a GPU wait."""
    masks = made().to("meta")
    assert {getattr(masks, f.name).device.type for f in fields(masks)[1:5]} == {"meta"}
    masks.weighted(torch.ones(3, device="meta"))
