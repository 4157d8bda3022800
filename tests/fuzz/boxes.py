"""Damaged files of key frames, boxes, persons and actions: refused by name, or read as sound ones.

A finding is an error that is no sentence with the damaged file's name, a sound file that is
refused, a box, score, time or action that can't be, other boxes of a csv than a parser of two lines
finds, or more than ``MOST_SECONDS``. Pickles may be crafted, too: sizes that no file holds, names
of functions.
"""

from __future__ import annotations

import json
import pickle
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from videomae_fast.data.boxes.ava_files import read_label_map
from videomae_fast.data.boxes.entries import KeyFrameList, greatest_class, read_key_frames
from videomae_fast.data.errors import ListError
from videomae_fast.recipes.box_source import BoxSource

FULL: Final = 20_000
CLASSES: Final = 4
SCORE: Final = 0.8
MOST_SECONDS: Final = 2.0

LIST, PERSONS, OUT = "list", "persons", "out"
_ODD: Final = (
    b"\0", b"\xff", b'"', b"\r", b"\n", b"-", b"9" * 30, b"1e999", b"nan", b"{", b"}", b"[", b"]",
    b",", b" ", b"0", b"1", b"\xef\xbb\xbf", b"[" * 5000, b"null", b"true", b'"x"', b"\xe2\x80\xa8",
)  # fmt: skip
_CRAFTED: Final = (
    b"cos\nsystem\n(X\x04\0\0\0trueK\x01tR", b"c__builtin__\neval\n", b"cnumpy\nload\n", b"R", b"b",
    b"\x81", b"Q", b"2" * 50, b"\x8a\xff", b"J\xff\xff\xff\x7f", b"(", b"t", b"0", b"}", b"]", b"N",
    b"G\x7f\xf8\0\0\0\0\0\0", b"h\0", b"h\x05", b"c_codecs\nencode\n", b"cnumpy\ndtype\n", b"\x93",
    b"U\x02f4", b"U\x02O8", b"K\xff", b"\x85", b"a", b"e", b"s", b"u",
)  # fmt: skip


def _number(chance: random.Random) -> float:
    return round(chance.random(), 3)


def _box(chance: random.Random) -> list[float]:
    x, y = sorted((_number(chance), _number(chance))), sorted((_number(chance), _number(chance)))
    return [x[0], y[0], x[1], y[1]]


def _keys(chance: random.Random) -> list[tuple[str, str]]:
    """Key frames of two videos; their first is one of the first video."""
    return [("a", "0002"), *((chance.choice("ab"), f"{chance.randint(3, 9):04d}") for _ in "ab")]


def _csv(chance: random.Random) -> dict[str, bytes]:
    lines, persons = [], []
    for video, second in _keys(chance):
        for _ in range(chance.randint(1, 2)):
            box = ",".join(map(str, _box(chance)))
            lines.append(f"{video},{second},{box},{chance.randint(1, CLASSES)}")
            persons.append(f"{video},{int(second)},{box},,{chance.choice((0.5, 0.9, 1))}")
    persons.append("a,0002,0,0,1,1,0.95")
    found = {"list.csv": lines, "persons.csv": persons, "out.csv": ["b,9", "c,1"]}
    return {name: "".join(f"{line}\n" for line in one).encode() for name, one in found.items()}


def _pickled(chance: random.Random) -> dict[str, bytes]:
    found = _csv(chance)
    del found["persons.csv"]
    persons: dict[str, Any] = {}
    for video, second in _keys(chance):
        rows = [[*_box(chance), chance.choice((0.5, 0.9, 1.0))] for _ in range(2)]
        shape = chance.choice((list, np.array, lambda rows: np.array(rows, "float32")))
        persons[f"{video},{second}"] = shape(rows)
    persons["a,0002"] = np.array([[0.0, 0.0, 1.0, 1.0, 0.9]])
    return {**found, "persons.pkl": pickle.dumps(persons, chance.randint(0, 5))}


def _json(chance: random.Random) -> dict[str, bytes]:
    images, annotations, persons = [], [], []
    for number, (video, second) in enumerate(dict.fromkeys(_keys(chance))):
        name = chance.choice(("movie", "video"))
        images.append({"id": number, name: video, "timestamp": second, "width": 200, "height": 100})
        for _ in range(chance.randint(1, 2)):
            box = [chance.randint(0, 90), chance.randint(0, 40), 60, 50]
            about: dict[str, Any] = {"image_id": number, "bbox": box}
            persons.append({**about, "score": 0.9})
            action = chance.randint(1, CLASSES)
            said = {"action_ids": [action]} if chance.random() < 0.5 else {"category_id": action}
            annotations.append({**about, **said})
    categories = [{"id": number, "name": f"act {number}"} for number in range(1, CLASSES + 1)]
    said = {"images": images, "annotations": annotations, "categories": categories}
    kind = chance.choice(("persons.json", "persons.pkl"))
    written = json.dumps(persons).encode() if kind.endswith("json") else pickle.dumps(persons)
    return {"list.json": json.dumps(said).encode(), kind: written, "out.csv": b"b,9\n"}


def _map(chance: random.Random) -> dict[str, bytes]:
    items = [f'item {{\n  name: "act {n}"\n  id: {n}\n}}\n' for n in range(1, CLASSES + 1)]
    return {"actions.pbtxt": "".join(chance.sample(items, 3)).encode()}


_KINDS: Final[dict[str, Callable[[random.Random], dict[str, bytes]]]] = {
    "csv": _csv,
    "pickle": _pickled,
    "json": _json,
    "map": _map,
}


def _damaged(chance: random.Random, content: bytes, pieces: tuple[bytes, ...]) -> bytes:
    at = chance.randrange(len(content) + 1)
    kind = chance.choice(("flip", "cut", "insert", "insert", "replace", "drop", "twice", "noise"))
    if kind == "flip" and at < len(content):
        return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]
    if kind == "cut":
        return content[:at]
    if kind == "insert":
        return content[:at] + chance.choice(pieces) + content[at:]
    if kind == "twice":
        return content[:at] + content[max(0, at - chance.randint(1, 80)) :]
    if kind == "noise":
        return chance.randbytes(chance.randint(0, 40)) + content[at:]
    gone = chance.randint(1, 8)
    return (
        content[:at] + (chance.choice(pieces) if kind == "replace" else b"") + content[at + gone :]
    )


def run(count: int, seed: int, folder: Path) -> Iterator[str]:
    """Yields a line for each file that is read wrong, or refused in no sentence."""
    for case in range(count):
        chance = random.Random(f"{seed} {case}")
        kind = chance.choice(sorted(_KINDS))
        files = _KINDS[kind](chance)
        name = chance.choice(sorted(files))
        pieces = _ODD + _CRAFTED if name.endswith(".pkl") else _ODD
        for _ in range(times := chance.choice((0, 1, 1, 2, 4))):
            files[name] = _damaged(chance, files[name], pieces)
        begin = time.process_time()
        finding = _try(files, name if times else "", folder)
        if not finding and time.process_time() - begin > MOST_SECONDS:
            finding = f"took {time.process_time() - begin:.1f} s"
        if finding:
            yield f"case {case} of seed {seed}, {name} {files[name][:300]!r}: {finding}"


def _try(files: dict[str, bytes], damaged: str, folder: Path) -> str:
    """What is wrong; damaged: the file that may be refused."""
    paths = {name.partition(".")[0]: folder / name for name in files}
    for path, content in zip(paths.values(), files.values(), strict=True):
        path.write_bytes(content)
    try:
        if LIST not in paths:
            names = read_label_map(paths["actions"])
            return "" if all(number >= 0 for number in names) else f"read as {names}"
        source = BoxSource(paths[LIST], proposals=paths[PERSONS], exclusions=paths[OUT])
        greatest = greatest_class(source)
        found = read_key_frames(source, CLASSES, SCORE)
    except ListError as error:
        said = str(error)
        told = damaged and str(folder / damaged) in said and "\n" not in said and len(said) < 2000
        return "" if told else f"refused, and not in a sentence with its name: {said[:300]!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    if greatest < 1:
        return f"its greatest action is {greatest}"
    return _impossible(found) or _other_boxes(found, files)


def _impossible(found: KeyFrameList) -> str:
    keys = [entry.key for entry in found.entries]
    if len(set(keys)) < len(keys):
        return f"a key frame twice in {keys}"
    for entry in found.entries:
        many, place = len(entry.boxes), f"{entry.key}: "
        if not 0 <= entry.seconds < float("inf"):
            return f"{place}at {entry.seconds} s"
        if entry.labels.shape != (many, CLASSES) or not entry.labels.any(1).all():
            return f"{place}actions {entry.labels.tolist()} of {many} boxes"
        if len(entry.scores) != len(entry.persons):
            return f"{place}{len(entry.scores)} scores of {len(entry.persons)} persons"
        if not ((entry.scores >= np.float32(SCORE)) & (entry.scores <= 1)).all():
            return f"{place}scores {entry.scores.tolist()}"
        height, width = entry.size or (1, 1)
        for boxes in (entry.boxes, entry.persons):
            within = boxes.clip(-1e-6, np.array([width, height] * 2) + 1e-6)
            if boxes.shape[1:] != (4,) or not np.isfinite(boxes).all() or (boxes != within).any():
                return f"{place}boxes {boxes.tolist()} in {width} x {height}"
    return ""


def _other_boxes(found: KeyFrameList, files: dict[str, bytes]) -> str:
    """Compares with the lines of a csv, split at commas, where nothing is quoted."""
    content = files.get("list.csv", b'"')
    if b'"' in content or b"\r" in content:
        return ""
    rows = [line.split(",") for line in content.decode().split("\n") if line]
    expected = {
        (row[0], row[1], *map(float, row[2:6]), int(row[6])) for row in rows if any(row[2:])
    }
    read = {
        (*entry.key, *box, number + 1)
        for entry in found.entries
        for box, actions in zip(entry.boxes.tolist(), entry.labels, strict=True)
        for number in actions.nonzero()[0].tolist()
    }
    return "" if read == expected else f"read as {sorted(read)}, not as {sorted(expected)}"
