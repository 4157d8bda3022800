"""JSON beside weights and in them, of a size that such JSON has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from videomae_fast.errors import WeightsError
from videomae_fast.interop.reading.refusal import refused

MOST_BYTES: Final = 1 << 24
"""Config and index files have kilobytes; the index of a thousand shards has some megabytes."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: of the file, of at most ``MOST_BYTES``.

    Returns:
        Names and values.

    Raises:
        WeightsError: no such file, too large, no JSON, or no object.
    """
    with refused(path, "can't be read", "copy or download it again"):
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise WeightsError(
                f"{path}: has {size:,} bytes, which no such file has; download it again"
            )
        return parse_object(path.read_text(encoding="utf-8"), str(path))


def parse_object(text: str, what: str) -> dict[str, Any]:
    """The object in a JSON text.

    Args:
        text: JSON.
        what: begins the message of an error.

    Returns:
        Names and values.

    Raises:
        WeightsError: no JSON, or no object.
    """
    with refused(what, "is no JSON"):
        value = json.loads(text)
    if not isinstance(value, dict):
        raise WeightsError(f"{what}: is no JSON object but a {type(value).__name__}")
    return value
