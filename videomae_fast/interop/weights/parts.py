"""Which part of the model a key belongs to, in the layouts that are read and written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from torch import Tensor

_PARTS: Final[dict[str, re.Pattern[str]]] = {
    part: re.compile(pattern)
    for part, pattern in {
        "patch embedding": r"((encoder|backbone)\.)?patch_embed\.|"
        r"(videomae\.)?embeddings\.patch_embeddings\.",
        "positions": r"((encoder|backbone)\.)?pos_embed$|"
        r"((videomae\.)?embeddings\.)?position_embeddings$",
        "encoder blocks": r"((encoder|backbone)\.)?blocks\.|(videomae\.)?encoder\.layer\.",
        "encoder norm": r"encoder\.norm\.|(videomae\.)?layernorm\.",
        "encoder to decoder": r"encoder_to_decoder\.",
        "mask token": r"mask_token$",
        "decoder blocks": r"decoder\.(blocks|decoder_layers)\.",
        "decoder norm": r"decoder\.norm\.",
        "decoder head": r"decoder\.head\.",
        "detector norm": r"(backbone\.)?norm\.",
        "classifier norm": r"(backbone\.)?fc_norm\.",
        "classifier head": r"(head|classifier|cls_head\.fc_cls|roi_head\.bbox_head\.fc_cls)\.",
    }.items()
}


class Amount(NamedTuple):
    """How much there is of something.

    Attributes:
        tensors: their number.
        values: in all of them.
    """

    tensors: int
    values: int

    def plus(self, tensor: Tensor) -> Amount:
        """The amount with a tensor more."""
        return Amount(self.tensors + 1, self.values + tensor.numel())


Tally = dict[str, Amount]


def part_of(key: str) -> str:
    """The part's name; a key of no known part is its own."""
    return next((part for part, pattern in _PARTS.items() if pattern.match(key)), key)


def tally(state: Mapping[str, Tensor]) -> Tally:
    """How much there is of each part, in the order of the model."""
    found = dict.fromkeys(_PARTS, Amount(0, 0))
    for key, tensor in state.items():
        part = part_of(key)
        found[part] = found.get(part, Amount(0, 0)).plus(tensor)
    return {part: amount for part, amount in found.items() if amount.tensors}
