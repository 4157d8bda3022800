"""Names the files whose frames could not be numbered without decoding them: once each, with why."""

from __future__ import annotations

from collections import Counter
from typing import Final

_NAMED: Final = 50  # files by name; the rest by number


class NumberedFiles:
    """Files that had to be decoded to number their frames."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._reasons: Counter[str] = Counter()

    def tell(self, path: str, why: str | None) -> str | None:
        """A line for the log, or None where there is nothing to say of this file, or not again."""
        if why is None or path in self._files:
            return None
        self._files.add(path)
        self._reasons[why] += 1
        if len(self._files) > _NAMED:
            return None
        return f"{path}: decoded to number its frames: {why}"

    def summary(self) -> str | None:
        """All of them by reason, where not each was named."""
        if len(self._files) <= _NAMED:
            return None
        told = ", ".join(f"{count:,} for {why}" for why, count in self._reasons.most_common())
        return f"{len(self._files):,} files were decoded to number their frames: {told}"
