"""One table of names for both directions."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from videomae_fast.errors import WeightsError
from videomae_fast.interop.weights.check import named

_BLOCK = re.compile(r"(?<=\.)\d+(?=\.)")


class Names:
    """Pairs of names, ours and another layout's.

    A pair's "#" stands for a block's number. A pair whose names end in "." stands for all tensors
    of a module: its weight and its bias.
    """

    def __init__(
        self, layout: str, pairs: Mapping[str, str], also: Mapping[str, str] | None = None
    ) -> None:
        """Takes the table.

        Args:
            layout: the other layout's name, for messages.
            pairs: our name to theirs.
            also: other names of theirs that are read too, to ours.
        """
        self._layout = layout
        self._theirs = dict(pairs)
        self._ours = {**(also or {}), **{theirs: ours for ours, theirs in pairs.items()}}

    def theirs(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state dict by the other layout's names.

        Raises:
            WeightsError: names that have no counterpart there.
        """
        return _renamed(state, self._theirs, f"{self._layout} model")

    def ours(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state dict by our names, the inverse of :meth:`theirs`.

        Raises:
            WeightsError: names that have no counterpart here, or two that have the same.
        """
        return _renamed(state, self._ours, "the official layout")


def _renamed(
    state: Mapping[str, Tensor], pairs: Mapping[str, str], where: str
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    strange = []
    for name, value in state.items():
        number = _BLOCK.search(name)
        pattern = name if number is None else _BLOCK.sub("#", name, count=1)
        stem, _, kind = pattern.rpartition(".")
        if pattern in pairs:
            new = pairs[pattern]
        elif f"{stem}." in pairs:
            new = pairs[f"{stem}."] + kind
        else:
            strange.append(name)
            continue
        if number is not None:
            new = new.replace("#", number[0], 1)
        if new in found:
            raise WeightsError(f"two entries become {new!r}, one is {name!r}")
        found[new] = value
    if strange:
        raise WeightsError(f"no counterpart in {where}: {named(strange)}")
    return found
