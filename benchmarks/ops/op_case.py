"""One call of an op, to be checked and timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class OpCase:
    """One call of an op.

    Attributes:
        op: its name in the registry of `videomae_fast.ops`.
        where: which of the model's calls this is.
        args: makes the arguments, as the op's backends take them.
        bytes: what must be read and written at least, in all.
        flop: of matmuls, in all; 0 for ops that only move bytes.
        terms: of the longest sum that is no matmul's; 0 where there is none.
        compiles: whether the reference is one graph; not where it depends on values.
        forward: of a backward op the arguments of the forward one that `args` kept results of, the
            same under the same seed: for libraries' chains, whose autograd keeps its own; or None.
    """

    op: str
    where: str
    args: Callable[[], tuple[Any, ...]]
    bytes: int
    flop: int = 0
    terms: int = 0
    compiles: bool = True
    forward: Callable[[], tuple[Any, ...]] | None = None

    @property
    def name(self) -> str:
        """Op and place."""
        return f"{self.op} ({self.where})"
