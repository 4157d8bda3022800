"""Triton's interpreter without what it does again and again for each operation of a kernel.

What it computes and what it refuses stay as they are, bit for bit; it takes a fraction of the time.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

# Of what was replaced: where, its name, and Triton's own
_REPLACED: list[tuple[Any, str, Any]] = []


def quicken() -> None:
    """Replaces functions of the interpreter; once, after Triton was imported to interpret."""
    _replace_builtins_once_a_launch()
    _look_up_dtypes()
    _compute_no_overflow_in_vain()
    _reduce_all_rows_at_once()


@contextmanager
def slow() -> Iterator[None]:
    """The interpreter as Triton has it, while entered."""
    quick = [getattr(place, name) for place, name, _ in _REPLACED]
    for place, name, theirs in _REPLACED:
        setattr(place, name, theirs)
    try:
        yield
    finally:
        for (place, name, _), ours in zip(_REPLACED, quick, strict=True):
            setattr(place, name, ours)


def _replace(place: Any, name: str, ours: Any) -> None:
    _REPLACED.append((place, name, getattr(place, name)))
    setattr(place, name, ours)


def _replace_builtins_once_a_launch() -> None:
    """Each call of a device function looked through ``triton.language`` for what is to be replaced
    by the interpreter's; only a launch's first call of a kind finds something."""
    from triton import language
    from triton.runtime import interpreter

    theirs, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    replaced: set[tuple[bool, ...]] = set()

    def patch(function: Any) -> Any:
        seen = [value for value in function.__globals__.values() if inspect.ismodule(value)]
        kind = tuple(module in seen for module in (language, language.core))
        if kind in replaced:
            return None  # what a device function's call does not look at
        scope = theirs(function)
        replaced.add(kind)
        return scope

    def call(self: Any, *args: Any, **options: Any) -> Any:
        replaced.clear()  # a launch undoes at its end what it replaces at its beginning
        try:
            return launch(self, *args, **options)
        finally:
            replaced.clear()

    _replace(interpreter, "_patch_lang", patch)
    _replace(interpreter.GridExecutor, "__call__", call)


def _look_up_dtypes() -> None:
    """A table of all dtypes was made for each look-up."""
    from triton import language
    from triton.runtime import interpreter

    theirs = interpreter._get_np_dtype
    known: dict[str, Any] = {}

    def dtype_of(dtype: Any) -> Any:
        element = dtype.element_ty if isinstance(dtype, language.block_type) else dtype
        if isinstance(element, language.pointer_type):
            return theirs(dtype)
        if element.name not in known:
            known[element.name] = theirs(element)
        return known[element.name]

    _replace(interpreter, "_get_np_dtype", dtype_of)


def _compute_no_overflow_in_vain() -> None:
    """Sums of integers were computed a second time, in 64 bits, for a check that looks at the
    result only where kernels are debugged."""
    from triton.language.semantic import TritonSemantic

    theirs = TritonSemantic.binary_op_sanitize_overflow_impl

    def check(self: Any, one: Any, other: Any, operation: Any) -> None:
        if self.builder.options.debug:
            theirs(self, one, other, operation)

    _replace(TritonSemantic, "binary_op_sanitize_overflow_impl", check)


def _reduce_all_rows_at_once() -> None:
    """A reduction by a function of a kernel's own called it for element after element; here the
    elements that lie beside each other go through it together, in the same order along the axis."""
    from triton.language import core
    from triton.runtime import interpreter

    theirs = interpreter.ReduceOps.generic_reduce

    def reduce(self: Any, given: Any) -> Any:
        if self.axis is None or given[0].handle.data.ndim < 2 or _branches(self.combine_fn.fn):
            return theirs(self, given)
        dtypes = [one.dtype for one in given]
        rows = zip(*(np.moveaxis(one.handle.data, self.axis, 0) for one in given), strict=True)
        total: list[Any] = []
        for row in rows:
            here = list(map(self.to_tensor, row, dtypes))
            found = self.combine_fn.fn(*total, *here) if total else here
            total = list(found) if isinstance(found, list | tuple | core.tuple) else [found]
            if [getattr(one, "dtype", None) for one in total] != dtypes:
                return theirs(self, given)
        results = [one.handle.data for one in total]
        if self.keep_dims:
            results = [np.expand_dims(result, self.axis) for result in results]
        return list(map(self.to_tensor, results, dtypes))

    _replace(interpreter.ReduceOps, "generic_reduce", reduce)


@cache
def _branches(function: Callable[..., Any]) -> bool:
    """Whether it goes other ways for other values."""
    return any("JUMP" in step.opname for step in dis.get_instructions(function))
