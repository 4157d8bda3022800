"""Features on disk: a ``.npy`` per video, whole or not there, and what it is in a JSON beside it.

The JSON is put in place first and the array last, so that an array with its JSON is one that was
finished, and one without is somebody else's.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from videomae_fast.data.errors import OutputError
from videomae_fast.data.files import write_lines

MADE_FROM: Final = "made_from"
"""Of a JSON: all that decides what the values are; features with the same are not made again."""

State = Literal["whole", "unfinished", "other", "absent"]


def sidecar_of(array: Path) -> Path:
    """The JSON that belongs to an array."""
    return array.with_name(array.name.removesuffix(".npy") + ".json")


def state_of(array: Path, made_from: Mapping[str, Any]) -> State:
    """What is there in the place of an array.

    Args:
        array: path of the ``.npy``.
        made_from: what the features are to be made from.

    Returns:
        "whole": these features; "unfinished": a JSON without its array, or with a part of it;
        "other": features of something else, or an array without JSON; "absent": nothing.

    Raises:
        OutputError: what is there can't be read.
    """
    sidecar = sidecar_of(array)
    try:
        if not sidecar.exists():
            return "other" if array.exists() else "absent"
        try:
            told = json.loads(sidecar.read_bytes())
            same, shape = told[MADE_FROM] == json.loads(json.dumps(made_from)), told["shape"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return "other"
        if not array.exists():
            return "unfinished"
        if not same:
            return "other"
        return "whole" if _holds(array, shape) else "unfinished"
    except OSError as error:
        raise OutputError(f"{array}: can't be read: {error.strerror or error}") from error


def write_features(
    array: Path, shape: tuple[int, ...], parts: Iterable[NDArray[np.float32]], told: dict[str, Any]
) -> Iterator[int]:
    """Writes an array part by part, so that memory does not hold it, with its JSON.

    Args:
        array: path of the ``.npy``; a file that is there is replaced.
        shape: of the whole.
        parts: float32, [some, *shape[1:]], of ``shape[0]`` rows in all.
        told: the JSON, with :data:`MADE_FROM`; ``shape`` and ``dtype`` are added.

    Yields:
        The rows of each part once it is written. The array is in its place when all were taken.

    Raises:
        OutputError: it can't be written.
        ValueError: the parts do not add up to the shape.
    """
    partial = array.with_name(f".{array.name}.{os.getpid()}.partial")
    try:
        with _failing(array):
            array.parent.mkdir(parents=True, exist_ok=True)
            file = partial.open("wb")
        with file:
            with _failing(array):
                _write_header(file, shape)
            rows = 0
            for part in parts:
                if part.shape[1:] != shape[1:]:
                    raise ValueError(f"a part of {part.shape} does not belong to {shape}")
                rows += len(part)
                with _failing(array):
                    file.write(np.ascontiguousarray(part, dtype="<f4").data)
                yield len(part)
            if rows != shape[0]:
                raise ValueError(f"{rows} rows for an array of {shape}")
            with _failing(array):
                file.flush()
                os.fsync(file.fileno())
        with _failing(array):
            array.unlink(missing_ok=True)
            text = json.dumps({**told, "shape": list(shape), "dtype": "float32"}, indent=1)
            write_lines(sidecar_of(array), [text, "\n"])
            os.replace(partial, array)
    finally:
        partial.unlink(missing_ok=True)


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})


def _holds(array: Path, shape: list[int]) -> bool:
    """Whether a file is an array of this shape, to its last byte."""
    with array.open("rb") as file:
        try:
            version = npy.read_magic(file)
            found, fortran, dtype = npy.read_array_header_1_0(file)
        except ValueError:
            return False
        size = file.tell() + 4 * math.prod(found)
        said = (version, list(found), fortran, dtype)
        return said == ((1, 0), shape, False, np.dtype("<f4")) and array.stat().st_size == size


@contextmanager
def _failing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror or error}") from error
