"""Fixed position tables of other code: plain attributes that live on the host, here moved along."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn


def place(module: nn.Module, name: str) -> None:
    """Moves a fixed table to the device of the module's parameters; a parameter is left alone."""
    table = getattr(module, name)
    if isinstance(table, Tensor) and not isinstance(table, nn.Parameter):
        setattr(module, name, table.to(next(module.parameters()).device))


class WithTable(nn.Module):
    """Moves the table with the parameters, as a buffer would be, without becoming one.

    A buffer more would change what DistributedDataParallel broadcasts and what users list.
    """

    table_name: ClassVar[str] = "pos_embed"

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        place(self, self.table_name)
        return self

    def table(self, like: Tensor) -> Tensor:
        """[N, D], on the device of `like`."""
        table: Tensor = getattr(self, self.table_name)
        return table.to(like.device)[0]
