"""The newest numbers of a run as Prometheus's text, for a node exporter's textfile collector."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from videomae_fast.data.errors import OutputError

_PREFIX = "videomae_fast_"


class PrometheusFile:
    """A file that is replaced as a whole, so that nobody reads half of it.

    Args:
        path: of the file, in a folder that is there.
        run: the label that tells runs apart.
    """

    def __init__(self, path: Path, run: str) -> None:
        self.path, self.run = path, run

    def write(self, numbers: Mapping[str, float | None]) -> None:
        """Replaces what was there.

        Raises:
            OutputError: the file can't be written.
        """
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            partial.write_text(text(numbers, self.run), encoding="utf-8")
            partial.replace(self.path)
        except OSError as error:
            raise OutputError(
                f"can't write {self.path}: {error}; give --prometheus a file in a folder that is "
                "there, or leave it out"
            ) from error


def text(numbers: Mapping[str, float | None], run: str) -> str:
    """Gauges by name; numbers that are None are left out."""
    label = run.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    lines = []
    for name, value in numbers.items():
        if value is not None:
            lines.append(f"# TYPE {_PREFIX}{name} gauge")
            lines.append(f'{_PREFIX}{name}{{run="{label}"}} {float(value)!r}')
    return "\n".join([*lines, ""])
