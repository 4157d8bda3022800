"""What a backward op says where its own derivative is wanted."""

from __future__ import annotations

from typing import Any

from videomae_fast.errors import DerivativeError


def first_only(op: Any, name: str) -> None:
    """Makes a second derivative through `name` an error that says so.

    Args:
        op: the custom op that is its backward.
    """

    def refuse(_ctx: Any, *_grads: Any) -> Any:
        raise DerivativeError(
            f"{name} has no second derivative (create_graph=True, gradient penalties): use the "
            "model's own code for it; an accelerated model has it back after report.undo()"
        )

    op.register_autograd(refuse)
