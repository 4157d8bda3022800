"""Files of class names: how they are written, and what is no such file."""

from __future__ import annotations

from pathlib import Path

import pytest

from videomae_fast.data.labels.names import class_names
from videomae_fast.errors import UsageError

NAMES = ("a", "caf\u00e9", "c d")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_names_are_read_as_editors_write_them(encoding: str, end: str, tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    text = "".join(f"{name}{end}" for name in NAMES)
    mark = "\ufeff" if encoding.endswith("e") else ""  # the other encodings write it themselves
    file.write_bytes((mark + text).encode(encoding))
    assert class_names(str(file)) == NAMES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb\n\n", ":3: is empty; each line names a class"),
        (b"a\nb\na\n", ":3: 'a' is the class of line 1 too"),
        ("a\nb\n".encode("utf-16-le"), ":1: has null bytes, so it is no text: save it as UTF-8"),
        (b"\xff\xfea\0\n", ": begins with the byte-order mark of UTF-16 but is none"),
    ],
)
def test_what_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        class_names(str(file))
    assert str(caught.value).startswith(f"{file}{message}")
