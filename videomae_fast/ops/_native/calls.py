"""Calling a C function with tensors: pointers, checks, return codes turned into exceptions."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch
from torch import Tensor

from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops._native.loader import library, why_missing

_OUT_OF_MEMORY = -2  # kOutOfMemory in csrc/common.h; -1 is a bad argument

# One letter per argument of a C function.
_TYPES: dict[str, Any] = {
    "p": ctypes.c_void_p,
    "i": ctypes.c_int64,
    "b": ctypes.c_int32,
    "f": ctypes.c_float,
}


@cache
def _function(name: str, signature: str) -> ctypes._NamedFuncPointer:
    loaded = library()
    if loaded is None:
        raise BackendUnavailableError(why_missing())
    function: ctypes._NamedFuncPointer = loaded[name]
    function.restype = ctypes.c_int64
    function.argtypes = [_TYPES[letter] for letter in signature]
    return function


def call(
    name: str, signature: str, *args: Tensor | float | None, index: tuple[Tensor, ...] = ()
) -> None:
    """Calls a function of the library; the thread count is added as the last argument.

    Args:
        signature: one letter per argument without the thread count: "p" a tensor (or None),
            "i" an int64, "b" a flag, "f" a float.
        index: the token positions that a positive return code counts through, one after the other.

    Raises:
        BackendUnavailableError: there is no library.
        IndexError: a token position is out of range.
        ValueError: the library refuses the arguments.
        MemoryError: the library found no memory.
    """
    plain = [arg.data_ptr() if isinstance(arg, Tensor) else arg for arg in args]
    code = _function(name, signature + "i")(*plain, torch.get_num_threads())
    if code == 0:
        return
    if code == _OUT_OF_MEMORY:
        raise MemoryError(f"{name}: out of memory")
    place = code - 1
    for positions in index if code > 0 else ():
        if place < positions.numel():
            clip, entry = divmod(place, positions.shape[-1])
            raise IndexError(
                f"token position {int(positions[clip, entry])} (clip {clip}, entry {entry}) is out "
                "of range"
            )
        place -= positions.numel()
    shapes = ", ".join(str(list(a.shape)) if isinstance(a, Tensor) else str(a) for a in args)
    raise ValueError(f"{name} refuses its arguments ({shapes})")


def contiguous(*tensors: Any) -> tuple[Any, ...]:
    """Tensors, each contiguous; None stays None.

    Shapes, dtypes and devices have been checked by the op's contract and the backend's limits.
    """
    return tuple([None if one is None else one.contiguous() for one in tensors])
