"""Parts of a list that machines take: which lines are whose, by number alone."""

from __future__ import annotations

Shard = tuple[int, int]
"""(i, n): part i of n, from 1 to n."""


def contiguous(count: int, shard: Shard) -> range:
    """The lines of a part: parts one after the other are all lines in their order.

    Args:
        count: lines of the list.
        shard: which part.

    Raises:
        ValueError: no such part.
    """
    part, parts = shard
    if not 1 <= part <= parts:
        raise ValueError(f"shard {part} of {parts} is none")
    return range(count * (part - 1) // parts, count * part // parts)


def shard_count(lines: int, wanted: int) -> int:
    """How many parts a list is cut into where so many are wanted: none without a line."""
    return max(1, min(lines, wanted))


def shard_name(shard: Shard) -> str:
    """``2-of-4``, for files and folders."""
    return f"{shard[0]}-of-{shard[1]}"
