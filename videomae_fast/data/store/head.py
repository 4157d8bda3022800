"""``store.json``: the parts of a tar store, with sizes and checksums of their files.

The one file of a store that is ever replaced, and as a whole. A part is what one command added;
version ``v`` is the first ``v`` parts, so every version that was stays readable.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from videomae_fast.data.files import write_lines
from videomae_fast.data.store.base import StoreError

HEAD: Final = "store.json"
_FORMAT: Final = 1
_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class Stored:
    """A file of a store: its name, relative to the store, size, and CRC-32."""

    name: str
    bytes: int
    crc32: int

    @classmethod
    def of(cls, path: Path, name: str) -> Stored:
        """A file that is there, read as a whole; ``OSError`` where it can't be."""
        size = crc = 0
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                size, crc = size + len(chunk), zlib.crc32(chunk, crc)
        return cls(name, size, crc)


@dataclass(frozen=True)
class Part:
    """What one command added.

    Attributes:
        rows: clips.
        index: the files of the index, by what they hold.
        tars: the files with the clips, in the order of their numbers.
    """

    rows: int
    index: dict[str, Stored]
    tars: tuple[Stored, ...]


def head_text(parts: list[Part]) -> str:
    """What ``store.json`` says."""
    said = {"videomae_fast_store": _FORMAT, "parts": [asdict(part) for part in parts]}
    return json.dumps(said, indent=1, ensure_ascii=False) + "\n"


def write_head(folder: Path, parts: list[Part]) -> None:
    """Makes these the parts of a store: from here on its version is their number.

    Raises:
        OutputError: it can't be written; the version before stands.
    """
    write_lines(folder / HEAD, [head_text(parts)])


def read_head(content: bytes, named: str) -> list[Part]:
    """The parts of a store.

    Args:
        content: of ``store.json``.
        named: the file, for messages.

    Raises:
        StoreError: it is none, of another format, or names files outside of the store.
    """
    try:
        said = json.loads(content)
        form = said["videomae_fast_store"]
        if form != _FORMAT:
            raise StoreError(
                f"{named}: a store of format {form!r}, and this version reads {_FORMAT}: update "
                "videomae-fast"
            )
        return [_part(one) for one in said["parts"]]
    except StoreError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(
            f"{named}: no head of a store ({type(error).__name__}: {str(error)[:80]}): it was "
            "damaged, or written by another program; take it from a copy of the store"
        ) from error


def _part(said: dict[str, Any]) -> Part:
    index = {str(what): _stored(one) for what, one in said["index"].items()}
    return Part(_whole(said["rows"]), index, tuple(_stored(one) for one in said["tars"]))


def _stored(said: dict[str, Any]) -> Stored:
    name = said["name"]
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
        raise ValueError(f"{name!r} is no file of the store")
    return Stored(name, _whole(said["bytes"]), _whole(said["crc32"]))


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} is no number")
    return value


def version_of(parts: list[Part], version: int | None, named: str) -> list[Part]:
    """The parts of a version; the newest is None.

    Raises:
        StoreError: there is none such.
    """
    check_version(version, len(parts), named)
    return parts[: len(parts) if version is None else version]


def check_version(version: int | None, newest: int, named: str) -> None:
    """Raises StoreError where a store has no such version."""
    if newest < 1:
        raise StoreError(f"{named}: the store holds nothing yet")
    if version is not None and not 1 <= version <= newest:
        raise StoreError(f"{named}: the store has no version {version}, but 1 to {newest}")
