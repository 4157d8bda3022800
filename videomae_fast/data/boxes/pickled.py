"""Persons in pickles, as mmaction2's files of proposals are: read as data, nothing in them is run.

Such a file is a dict from ``"video,timestamp"`` to an array [N, 5]: x1, y1, x2, y2 in shares of the
width and height, and a score. For lists in JSON it is what the JSON would be: a list of dicts with
``image_id``, ``bbox`` and ``score``.
"""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.boxes.boxes import Boxes, Key
from videomae_fast.data.errors import ListError, cut
from videomae_fast.pickles import Built, Call, CodeError, Named, PickleError, read_pickle

PICKLES: Final = (".pkl", ".pickle")
_OPERATIONS: Final = 20_000_000
"""AVA's proposals for training take some 5 million."""
_NUMBERS: Final = re.compile(r"[fiu][248]|[iu]1")


class _Dtype(Built):
    """numpy.dtype, of plain numbers alone."""

    def __init__(self, name: Any, *_: Any) -> None:
        if not isinstance(name, str) or not _NUMBERS.fullmatch(name):
            raise PickleError(f"its arrays are of {_short(name)}, not of numbers")
        self.dtype = np.dtype(name)

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or not 5 <= len(state) <= 9:
            raise PickleError("its arrays say no type as NumPy does")
        _, order, *parts = state
        if order not in ("<", ">", "=", "|") or any(parts[:3]):
            raise PickleError("its arrays are not of plain numbers")
        self.dtype = self.dtype.newbyteorder(order)


class _Encoded:
    """_codecs.encode: bytes in the protocols before 3. They are made where an array needs them."""

    def __init__(self, text: Any, encoding: Any) -> None:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise PickleError("its bytes are not encoded as pickles are")
        self.text = text


class _Array(Built):
    """numpy.ndarray: what the pickle says of one. Nothing is copied until it is looked at."""

    def __init__(self, data: Any = b"", dtype: Any = None, shape: Any = (), *order: Any) -> None:
        self._data, self._dtype, self._shape = data, dtype, shape
        self._fortran = order[:1] == ("F",)

    def build(self, state: Any) -> None:
        _, self._shape, self._dtype, fortran, self._data = state
        self._fortran = bool(fortran)

    def values(self) -> NDArray[Any]:
        shape, kind = self._shape, self._dtype
        if not isinstance(kind, _Dtype) or not isinstance(shape, tuple) or len(shape) > 2:
            raise PickleError("its arrays are none of numbers in rows")
        if any(type(size) is not int or not 0 <= size < 2**40 for size in shape):
            raise PickleError("its arrays have no size")
        data = self._data.text if isinstance(self._data, _Encoded) else self._data
        if not isinstance(data, str | bytes | bytearray):
            raise PickleError("an array has no bytes")
        if math.prod(shape) * kind.dtype.itemsize != len(data):
            raise PickleError(f"an array of {shape} claims other bytes than the {len(data)} it has")
        if isinstance(data, str):  # as Python 2 wrote bytes
            data = data.encode("latin-1")
        found: NDArray[Any] = np.frombuffer(data, kind.dtype)
        return found.reshape(shape, order="F" if self._fortran else "C")


def _array(kind: Any, *_: Any) -> _Array:
    """numpy.core.multiarray._reconstruct."""
    if not isinstance(kind, Named) or kind.name != "numpy.ndarray":
        raise PickleError("its arrays are of another class than NumPy's")
    return _Array()


def _scalar(kind: Any, data: Any) -> int | float:
    """numpy.core.multiarray.scalar."""
    value: int | float = _Array(data, kind, ()).values().item()
    return value


def _no_bytes(*given: Any) -> bytes:
    """bytes, which protocols before 3 call for those that are empty."""
    if given:
        raise PickleError("its bytes are not written as pickles do")
    return b""


def _dict(*given: Any) -> dict[Any, Any]:
    """A dict of another class, which is filled later."""
    if given and not (len(given) == 1 and isinstance(given[0], Named)):  # what defaults are made of
        raise PickleError("its dicts are written as Python 2 does: write it again with Python 3")
    return {}


def _other(name: str) -> NoReturn:
    raise PickleError(f"it asks for {name}: only plain values and arrays of numbers are taken")


_CALLS: Final[dict[str, Call]] = {
    "numpy.dtype": _Dtype,
    "_codecs.encode": _Encoded,
    "__builtin__.bytes": _no_bytes,
    "collections.OrderedDict": _dict,
    "collections.defaultdict": _dict,
    **{f"numpy.{core}.multiarray._reconstruct": _array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _Array for core in ("core", "_core")},
}


class _Budget:
    """A file can't hold more numbers than bytes; parts that it names often would be more."""

    def __init__(self, left: int) -> None:
        self._left = left

    def take(self, numbers: int) -> None:
        self._left -= numbers
        if self._left < 0:
            raise PickleError("it has the same boxes so often that they are more than its bytes")


def read_pickled_persons(path: Path) -> dict[Key, Boxes]:
    """The persons of a pickle by key frame, as :func:`.ava_files.read_boxes` gives those of csv.

    Raises:
        ListError: it can't be read, asks for anything else than arrays of numbers, or has boxes
            that can't be; it names the file and the key frame.
    """
    value, budget = _read(path)
    if not isinstance(value, dict):
        raise ListError(f"{path}: must hold a dict from 'video,timestamp' to boxes [N, 5]")
    found: dict[Key, Boxes] = {}
    for key, boxes in value.items():
        video, comma, time = key.rpartition(",") if isinstance(key, str) else ("", "", "")
        if not (comma and video and time):
            raise ListError(f"{path}: the key {_short(key)} is no 'video,timestamp'")
        try:
            rows = _rows(boxes, budget)
        except (ValueError, TypeError, OverflowError) as error:
            raise ListError(f"{path}: {key[:80]}: {error}") from error
        if not len(rows):
            continue
        _check(rows, f"{path}: {key[:80]}")
        scores = rows[:, 4] if rows.shape[1] == 5 else np.ones(len(rows))
        found[video, time] = Boxes(rows[:, :4], np.zeros(len(rows), dtype=np.int64), scores)
    return found


def read_pickled_records(path: Path) -> Any:
    """What a pickle holds as JSON would: lists for tuples and arrays in its records.

    Raises:
        ListError: it can't be read, or asks for anything else than arrays of numbers.
    """
    value, budget = _read(path)
    if not isinstance(value, list | tuple):
        raise ListError(
            f"{path}: must hold a list of dicts with image_id, bbox and score, as the JSON of a "
            "list in JSON; a dict from 'video,timestamp' to boxes goes with a list in csv"
        )
    return [
        {key: _plain(path, one, budget) for key, one in record.items()}
        if isinstance(record, dict)
        else _short(record)
        for record in value
    ]


def _read(path: Path) -> tuple[Any, _Budget]:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            value = read_pickle(data, _CALLS, other=_other, most=_OPERATIONS)
            return value, _Budget(len(data))
    except CodeError as error:
        raise ListError(
            f"{path}: is a pickle that would call {error}, which no boxes need: nothing of it was "
            "run; don't load it elsewhere"
        ) from error
    except Exception as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise ListError(f"{path}: can't be read as a pickle of boxes: {said}") from error


def _rows(value: Any, budget: _Budget) -> NDArray[np.float64]:
    """Boxes as float64 [N, 4] or [N, 5]."""
    if isinstance(value, _Array):
        found = value.values()
        budget.take(found.size)
    else:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{_short(value)} where boxes are")
        budget.take(5 * len(value))
        found = np.array([_numbers(row) for row in value], dtype=np.float64)
    if not found.size:
        return np.empty((0, 4))
    if found.ndim != 2 or found.shape[1] not in (4, 5):
        raise ValueError(f"an array of {found.shape}, where boxes are [N, 4] or [N, 5]")
    return found.astype(np.float64)


def _numbers(row: Any) -> Iterable[float]:
    if isinstance(row, _Array):
        values = row.values()
        row = values.tolist() if values.size in (4, 5) else row
    if not isinstance(row, list | tuple) or len(row) not in (4, 5):
        raise ValueError(f"{_short(row)} where a box of 4 or 5 numbers is")
    if any(isinstance(one, bool) or not isinstance(one, int | float) for one in row):
        raise ValueError(f"{_short(row)} where numbers are")
    return row


def _check(rows: NDArray[np.float64], place: str) -> None:
    if not np.isfinite(rows).all():
        raise ListError(f"{place}: a box or score is no finite number")
    if (rows[:, :4] < -1e-6).any() or (rows[:, :4] > 1 + 1e-6).any():
        raise ListError(
            f"{place}: boxes are in shares of the width and height, 0 to 1, not pixels: "
            f"{rows[0, :4].tolist()}"
        )
    if rows.shape[1] == 5 and not ((rows[:, 4] >= 0) & (rows[:, 4] <= 1)).all():
        raise ListError(f"{place}: the score of a person is not 0 to 1")


def _plain(path: Path, value: Any, budget: _Budget) -> Any:
    """A field of a record, without arrays."""
    try:
        if isinstance(value, _Array):
            found = value.values()
            budget.take(found.size)
            return found.ravel()[:5].tolist()
    except ValueError as error:
        raise ListError(f"{path}: {error}") from error
    if isinstance(value, list | tuple):
        parts = [one if isinstance(one, str | int | float) else _short(one) for one in value[:5]]
        budget.take(len(parts))
        return parts
    budget.take(1)
    plain = isinstance(value, str | float) or (isinstance(value, int) and value.bit_length() <= 64)
    return value if plain else _short(value)


def _short(value: Any) -> str:
    """A value in an error, however large it is."""
    if isinstance(value, str | int | float) or value is None:
        large = isinstance(value, int) and value.bit_length() > 64
        return "a large number" if large else cut(repr(value), 60)
    return f"a {type(value).__name__.strip('_').lower()}"
