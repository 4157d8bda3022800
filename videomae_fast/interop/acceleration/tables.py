"""Fixed position tables of other code: plain attributes that live on the host, here moved along."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn


def place(module: nn.Module, name: str) -> None:
    """Moves a fixed table to the device of the module's parameters; a parameter is left alone."""
    table = getattr(module, name, None)
    device = next(module.parameters()).device
    if not isinstance(table, Tensor) or isinstance(table, nn.Parameter) or table.device == device:
        return
    if table.is_meta:  # there is nothing to move; the original's code says so when it is used
        return
    moved: Any = table.to(device)
    moved.as_given = getattr(table, "as_given", table)
    setattr(module, name, moved)


def put_back(module: nn.Module, name: str) -> None:
    """Undoes :func:`place`; a table that somebody has set since stays."""
    table: Any = getattr(module, name, None)
    if isinstance(table, Tensor) and hasattr(table, "as_given"):
        setattr(module, name, table.as_given)


class WithTable(nn.Module):
    """Moves the table with the parameters, as a buffer would be, without becoming one.

    A buffer more would change what DistributedDataParallel broadcasts and what users list.
    """

    table_name: ClassVar[str] = "pos_embed"

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        place(self, self.table_name)
        return self

    def fits(self, tokens: int) -> bool:
        """Whether the table is one of [1, tokens, width]."""
        table = getattr(self, self.table_name)
        return isinstance(table, Tensor) and table.ndim == 3 and table.shape[:2] == (1, tokens)

    def table(self, like: Tensor) -> Tensor:
        """[N, D], on the device of `like`; without a gradient, as in the original code."""
        table: Tensor = getattr(self, self.table_name)
        return table.detach().to(like.device)[0]
