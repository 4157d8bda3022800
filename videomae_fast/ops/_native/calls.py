"""Calling a C function with tensors: pointers, checks, return codes turned into exceptions."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from videomae_fast.arguments import Arguments
from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops._native.loader import library, why_missing

_OUT_OF_MEMORY = -2  # kOutOfMemory in csrc/common.h; -1 is a bad argument

_PLAIN = frozenset((int, float, bool, type(None)))
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
    # Quicker than to ask whether each is a tensor
    plain = [
        arg if type(arg) in _PLAIN else arg.data_ptr()  # type: ignore[union-attr]
        for arg in args
    ]
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


def in_fp32(run: Callable[[Arguments], Any], *like: str | None) -> Callable[[Arguments], Any]:
    """A function of fp32 tensors, for bf16 ones too: widened, computed with and rounded at the end.

    So do the references compute; what they round in between, such a function must not have.

    Args:
        run: the op.
        like: of each result the argument whose dtype it has (a tensor, or a dtype), or several,
            "a or b", of which the first that is there counts; None: fp32, whatever comes in.
    """
    places = [None if one is None else one.split(" or ") for one in like]

    def widened(args: Arguments) -> Any:
        # Each call of an op comes through here, and nearly all are of fp32
        for arg in args:
            if _lower(arg):
                break
        else:
            return run(args)
        found = run(args._make([_wide(arg) if _lower(arg) else arg for arg in args]))
        results = found if isinstance(found, tuple) else (found,)
        rounded = tuple(
            result if names is None else result.to(_dtype_at(args, names))
            for result, names in zip(results, places, strict=True)
        )
        return rounded if isinstance(found, tuple) else rounded[0]

    return widened


def _dtype_at(args: Arguments, names: list[str]) -> torch.dtype:
    return _dtype(next(one for name in names if (one := getattr(args, name)) is not None))


def _dtype(arg: Tensor | torch.dtype) -> torch.dtype:
    return arg if isinstance(arg, torch.dtype) else arg.dtype


def _lower(arg: Any) -> bool:
    return arg is torch.bfloat16 or (isinstance(arg, Tensor) and arg.dtype is torch.bfloat16)


def _wide(arg: Tensor | torch.dtype) -> Tensor | torch.dtype:
    return arg.float() if isinstance(arg, Tensor) else torch.float32
