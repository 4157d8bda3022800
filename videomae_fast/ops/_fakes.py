"""What an op gives without values, as fake tensors and the compiler ask for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final
from weakref import WeakKeyDictionary

import torch
from torch import SymFloat, SymInt, Tensor

_AUTOCAST: Final = ("cpu", "cuda")
_MOST: Final = 4096
_PLAIN: Final = frozenset((int, float, bool, str, type(None), torch.dtype))
_Shape = tuple[Any, ...]
_Known = dict[tuple[Any, ...], tuple[bool, list[tuple[_Shape, torch.dtype, torch.device]]]]


def dense(results: Any) -> Any:
    """A tensor or several, contiguous."""
    if isinstance(results, tuple):
        return tuple([one.contiguous() for one in results])
    return results.contiguous()


def fake_of(reference: Callable[..., Any]) -> Callable[..., Any]:
    """An op's fake: what the reference makes of fakes, dense.

    A compile asks for it again and again, with the same kinds of arguments. The reference, ten or
    more operations on fakes whose sizes may be symbols, took a good part of it; so it runs once for
    each kind.

    Args:
        reference: takes tensors, numbers, words, dtypes, None and lists of them.
    """
    plain: _Known = {}
    symbolic: WeakKeyDictionary[Any, _Known] = WeakKeyDictionary()  # by what the symbols are of

    def fake(*args: Any) -> Any:
        kinds = _Kinds()
        if not kinds.take(args):
            return dense(reference(*args))
        of = kinds.symbols
        known = plain if of is None else symbolic.setdefault(of, {})
        key = (*kinds.found, *_settings())
        if key not in known:
            results = dense(reference(*args))
            several = isinstance(results, tuple)
            if len(known) == _MOST:
                known.clear()
            known[key] = several, [_described(one) for one in (results if several else (results,))]
            return results
        several, described = known[key]
        made = [
            torch.empty(_sizes(shape, of), dtype=dtype, device=device)
            for shape, dtype, device in described
        ]
        return tuple(made) if several else made[0]

    return fake


class _Kinds:
    """What the reference's results depend on.

    Attributes:
        found: shapes, dtypes and devices of tensors, and other values; symbols as expressions.
        symbols: torch's environment of the symbols among them; None without any.
    """

    def __init__(self) -> None:
        self.found: list[Any] = []
        self.symbols: Any = None

    def take(self, args: Iterable[Any]) -> bool:
        """Adds arguments; False where the reference has to be asked each time."""
        for arg in args:
            if isinstance(arg, Tensor):
                self.found += arg.dtype, arg.device, arg.ndim
                if not self.take(arg.shape):
                    return False
            elif isinstance(arg, SymInt | SymFloat):
                node = arg.node
                of = getattr(node, "shape_env", None)
                if of is None or self.symbols not in (None, of):
                    return False
                self.symbols = of
                self.found.append(node.expr)
            elif isinstance(arg, list):
                self.found.append(len(arg))
                if not self.take(arg):
                    return False
            elif type(arg) in _PLAIN:
                self.found += type(arg), arg
            else:
                return False
        return True


def _settings() -> tuple[Any, ...]:
    """What else the dtypes of results depend on."""
    cast = ((torch.is_autocast_enabled(on), torch.get_autocast_dtype(on)) for on in _AUTOCAST)
    return torch.get_default_dtype(), *cast


def _described(result: Tensor) -> tuple[_Shape, torch.dtype, torch.device]:
    sizes: list[Any] = list(result.shape)
    shape = [size.node.expr if isinstance(size, SymInt) else size for size in sizes]
    return tuple(shape), result.dtype, result.device


def _sizes(shape: _Shape, of: Any) -> list[Any]:
    """Sizes of expressions again."""
    return [
        size if isinstance(size, int) else of.create_symintnode(size, hint=None) for size in shape
    ]
