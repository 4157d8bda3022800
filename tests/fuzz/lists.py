"""Damaged data lists: refused by file and line, or read as a parser of a few lines reads them."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from videomae_fast.data.errors import ListError
from videomae_fast.data.lists import Entry, list_line, load_list
from videomae_fast.recipes.source import ListFormat

FULL = 20_000

FORMATS: tuple[ListFormat, ...] = ("pretrain", "labels", "folder-labels")
# path, then numbers of at most 10 digits, from the right; \s of bytes also counts \n, never inside
_LINE = {
    1: re.compile(rb"(.+?)\s+(-?[0-9]{1,10})", re.DOTALL),
    2: re.compile(rb"(.+?)\s+(-?[0-9]{1,10})\s+(-?[0-9]{1,10})", re.DOTALL),
}
_PIECES = (
    b"a.mp4", b"dir/b c.mkv", b"#x", b'"', b'""', b'"q d"', b"caf\xc3\xa9", b"\xff\xfe", b"\xfe",
    b"\xef\xbb\xbf", b"\r", b"\t", b"\x0b", b"\x0c", b" ", b"  ", b"\0", b"/", b".", b"..", b"0",
    b"-1", b"12", b"-", b"\\", b"\xe2\x80\xa8", b"\x85", b"'", b",",
)  # fmt: skip


def simple(content: bytes, format: ListFormat) -> tuple[list[Entry], set[int]]:
    """The entries as the rules of ``lists.py`` say, line by line, and the lines that are wrong."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        content = content.decode("utf-16").encode()
    content = content.removeprefix(b"\xef\xbb\xbf")
    ends = b"\n" if b"\n" in content else b"\r"
    entries, wrong = [], set()
    for number, line in enumerate(content.split(ends), start=1):
        bare = line.strip()
        if line.startswith(b"#") or not bare:
            if b"\r" in bare:
                wrong.add(number)
            continue
        entry = _entry(bare, format, number)
        if entry is None:
            wrong.add(number)
        else:
            entries.append(entry)
    return entries, wrong


def _entry(line: bytes, format: ListFormat, number: int) -> Entry | None:
    found = _LINE[1 if format == "labels" else 2].fullmatch(line)
    if found is None:
        return None
    path, *texts = found.groups()
    numbers = [int(text) for text in texts]
    if any(abs(value) >= 2**31 for value in numbers) or b"\r" in line[len(path) :]:
        return None
    if len(path) > 1 and path.startswith(b'"') and path.endswith(b'"'):
        path = path[1:-1].replace(b'""', b'"')
    elif b"\r" in path:
        return None
    start, total, label = {
        "pretrain": (numbers[0], numbers[-1], -1),
        "labels": (0, -1, numbers[-1]),
        "folder-labels": (1, numbers[0], numbers[-1]),
    }[format]
    if format == "pretrain":
        refused = total == 0 or (total > 0 and start < 0)
        total = max(total, -1)
    else:
        refused = label < 0 or (format == "folder-labels" and total < 1)
    return None if refused or not path else Entry(os.fsdecode(path), start, total, label, number)


def _list(chance: random.Random, format: ListFormat) -> bytes:
    lines = []
    for _ in range(chance.randint(1, 4)):
        path = chance.choice(_PIECES[:3])
        if chance.random() < 0.6:
            path = b"".join(chance.choices(_PIECES, k=chance.randint(1, 4)))
        if chance.random() < 0.3:
            path = b'"' + path + b'"'
        odd = chance.random() < 0.05
        first = chance.choice((-3, 2**31) if odd else (0, 1, 9601))
        second = 0 if chance.random() < 0.05 else 300
        if format == "pretrain" and chance.random() < 0.6:
            second = -1
        numbers = {
            "pretrain": b" %d %d" % (first, second),
            "labels": b" %d" % first,
            "folder-labels": b" %d %d" % (second, first),
        }[format]
        lines.append(path + numbers)
        if chance.random() < 0.1:
            lines.append(chance.choice((b"", b"# a note", b"  ", b"#\rx 0 -1")))
    return chance.choice((b"\n", b"\n", b"\n", b"\r\n", b"\r")).join([*lines, b""])


def _flip(chance: random.Random, content: bytes) -> bytes:
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]


def _cut(chance: random.Random, content: bytes) -> bytes:
    return content[: chance.randrange(len(content))]


def _insert(chance: random.Random, content: bytes) -> bytes:
    at = chance.randrange(len(content) + 1)
    return content[:at] + chance.choice(_PIECES) + content[at:]


def _drop(chance: random.Random, content: bytes) -> bytes:
    at = chance.randrange(len(content))
    return content[:at] + content[at + chance.randint(1, 5) :]


def _encode(chance: random.Random, content: bytes) -> bytes:
    text = content.decode("latin-1")
    return text.encode(chance.choice(("utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-32")))


def _noise(chance: random.Random, content: bytes) -> bytes:
    return chance.randbytes(chance.randint(0, 40)) + content


_DAMAGE: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _flip, _flip, _cut, _insert, _insert, _drop, _encode, _noise
)  # fmt: skip


def run(count: int, seed: int, folder: Path) -> Iterator[str]:
    """Yields a line for each list that is read as something else, or refused in no sentence."""
    for case in range(count):
        chance = random.Random(f"{seed} {case}")
        format = FORMATS[case % len(FORMATS)]
        content = _list(chance, format)
        for _ in range(chance.choice((0, 0, 1, 1, 2, 3))):
            content = chance.choice(_DAMAGE)(chance, content or b"\n")
        finding = _try(content, format, folder / f"{case % 2}.csv")
        if finding:
            yield f"case {case} of seed {seed}, {format} {content!r}: {finding}"


def _try(content: bytes, format: ListFormat, path: Path) -> str:
    path.write_bytes(content)
    entries: list[Entry] = []
    refused = ""
    try:
        entries = _entries(path, format)
    except ListError as error:
        refused = str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    try:
        expected, wrong = simple(content, format)
    except UnicodeDecodeError:
        return "" if refused.startswith(f"{path}: ") else f"not refused by name: {refused!r}"
    if content[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):  # UTF-32
        return "" if refused.startswith(f"{path}: ") else f"not refused by name: {refused!r}"
    if wrong:
        named = re.match(rf"{re.escape(str(path))}:(\d+): found ", refused)
        told = named and int(named[1]) in wrong
        return "" if told else f"lines {sorted(wrong)} are wrong, it says {refused!r}"
    if not expected:
        return "" if "no entry" in refused else f"no entry, it says {refused!r}"
    if refused or entries != expected:
        return f"read as {entries} or refused ({refused}), not as {expected}"
    return _written_and_read(entries, format, path.with_name("again.csv"))


def _written_and_read(entries: list[Entry], format: ListFormat, path: Path) -> str:
    lines = "".join(list_line(entry, entry.path, format) for entry in entries)
    path.write_bytes(os.fsencode(lines))
    try:
        again = _entries(path, format)
    except ListError as error:
        return f"written as {lines!r}, refused: {error}"
    same = [(one.path, one.start, one.total, one.label) for one in entries]
    back = [(one.path, one.start, one.total, one.label) for one in again]
    return "" if same == back else f"written as {lines!r}, read back as {back}"


def _entries(path: Path, format: ListFormat) -> list[Entry]:
    loaded = load_list(path, format)
    return [loaded[index] for index in range(len(loaded))]
