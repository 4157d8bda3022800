"""Entries of the cache as earlier versions wrote them."""

from __future__ import annotations

import json
import zlib
from pathlib import Path


def first_version(entry: Path) -> None:
    """Makes an entry as version 1 wrote it: without checksums of frames."""
    content = entry.read_bytes()
    frames = int.from_bytes(content[8:12], "little")
    about = json.loads(content[16:frames].rstrip(b"\0"))
    assert about["version"] == 3
    about["version"] = 1
    told = json.dumps(about).encode().ljust(frames - 16, b"\0")
    prefix = content[:12] + zlib.crc32(told).to_bytes(4, "little")
    entry.write_bytes(prefix + told + content[frames : -4 * (about["shape"][0] + 1)])
