"""What each check of the command ends in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Ending = Literal["equal", "refused", "FAILED", "not run"]


@dataclass(frozen=True)
class Row:
    """One check.

    Attributes:
        name: what was run.
        ending: "equal"; "refused", by a sentence of AccelerationError; "FAILED"; or "not run".
        told: the sentence, what failed, or why it was not run.
        numbers: what was compared.
    """

    name: str
    ending: Ending
    told: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        numbers = ", ".join(f"{name} {_short(value)}" for name, value in self.numbers.items())
        told = "; ".join(part for part in (self.told, numbers) if part)
        return f"{self.ending:8} {self.name}: {told}"


def _short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def table(rows: list[Row]) -> str:
    """In Markdown."""
    lines = ["| what runs | | |", "|-|-|-|"]
    for row in rows:
        numbers = ", ".join(f"{name} {_short(value)}" for name, value in row.numbers.items())
        told = "; ".join(part for part in (row.told, numbers) if part)
        lines.append(f"| {row.name} | {row.ending} | {told} |")
    return "\n".join(lines)
