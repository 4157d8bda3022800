"""What a file is by its first bytes, and words for what is no weights file."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final, Literal

from videomae_fast.errors import WeightsError
from videomae_fast.interop.reading.refusal import AGAIN, refused

Format = Literal["safetensors", "zip", "pickle"]

SAFETENSORS: Final = ".safetensors"
_HEAD: Final = 1024
_SHOWN: Final = 60
_PICKLE: Final = b"\x80"
_PACKED: Final = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
}
_PAGES: Final = (b"<!doctype", b"<html", b"<head", b"<body", b"<?xml", b"<!--")


def format_of(path: Path) -> Format:
    """How to read a file, judged by its contents and not by its name.

    Args:
        path: of the file.

    Returns:
        "safetensors", "zip" (torch since 1.6) or "pickle" (torch before).

    Raises:
        WeightsError: no such file, or one that is no weights file; the message says what it is and
            what to do.
    """
    with refused(path, "can't be read", "see that it is there and that you may read it"):
        if not path.exists():
            raise WeightsError(f"{path}: no such weights file")
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise WeightsError(f"{path}: no weights file but a folder, a device or a pipe")
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEAD)
    said = SAFETENSORS in path.suffixes
    name = "a whole safetensors file" if said else "a torch checkpoint"
    if not head:
        raise WeightsError(f"{path}: not {name}: the file is empty; copy or download it again")
    if head[8:9] == b"{" and 8 + int.from_bytes(head[:8], "little") <= size:
        return "safetensors"
    if head.startswith(b"PK\3\4"):
        return "zip"
    if head.startswith(_PICKLE):
        return "pickle"
    other = _other(head)
    raise WeightsError(f"{path}: not {name}{f' but {other}' if other else f'; {AGAIN}'}")


def _other(head: bytes) -> str:
    """What else it is, and what to do; "" for bytes of no known kind."""
    pointer = re.match(rb"version https://git-lfs\.\S+\s", head)
    if pointer:
        size = re.search(rb"^size (\d{1,18})$", head, re.MULTILINE)
        there = f" of {int(size[1]):,} bytes" if size else ""
        return (
            f"a Git LFS pointer, which stands for the file{there}; get that with `git lfs pull`, "
            "or download it from the page of the repository"
        )
    packed = next((name for magic, name in _PACKED.items() if head.startswith(magic)), None)
    if packed:
        return f"packed with {packed}; unpack it first"
    if head[257:262] == b"ustar":
        return (
            "a tar archive; unpack it, or if torch before 0.2 wrote it, load it there and save its "
            "state dict anew"
        )
    if head.startswith(b"\x89HDF"):
        return "an HDF5 file, as TensorFlow and Keras have; save its tensors as safetensors"
    text = head.decode("utf-8", "replace").removeprefix("\ufeff").lstrip()
    shown = repr(" ".join(text.split())[:_SHOWN])
    if text.lower().encode().startswith(_PAGES):
        return (
            f"a web page (it begins with {shown}): the download gave a page, for a login or a "
            "quota, instead of the file; download it in a browser, or from another place"
        )
    if (
        text
        and "\ufffd" not in text[:-4]
        and all(c.isprintable() or c.isspace() for c in text[:-4])
    ):
        kind = "JSON" if text[0] in "{[" else "text"
        return f"{kind} (it begins with {shown}); download the weights themselves"
    return ""
