"""Pickles read as plain data: no class is looked up, and nothing in them is called.

A pickle is a program for a stack machine, and most of its operations only put values together.
Those are done here. A call is a name and arguments, and who reads says what stands in its place,
usually a record. So whatever stands beside what is wanted (an argparse namespace, paths, objects of
classes that are not installed) is read past, and stays what it is: bytes.

Keys of dicts are values without parts, since comparing others can take forever, and names are
short: what a pickle says once it can use often. Nothing here recurses.
"""

from __future__ import annotations

import mmap
import pickletools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, Final, cast

MOST_OPERATIONS: Final = 1_000_000
"""About a second of work, and far more than a checkpoint has (ViT-g, optimizer too: 100,000)."""

_MOST_ARGUMENTS: Final = 16
_LONGEST_NAME: Final = 500
# Nothing is called here in any case. But who was sent a pickle that asks for these should know.
_RUNNING: Final = frozenset(
    {"os", "posix", "nt", "sys", "subprocess", "pty", "runpy", "importlib", "shutil", "socket",
     "webbrowser", "ctypes", "code", "pickle", "marshal"}
)  # fmt: skip
_RUNNING_BUILTINS: Final = frozenset(
    {"eval", "exec", "compile", "open", "input", "breakpoint", "__import__"}
)
_BUILTINS: Final = ("builtins", "__builtin__")


class PickleError(ValueError):
    """A pickle that is damaged, or has operations that plain data has not."""


class CodeError(PickleError):
    """A pickle that would start something where pickles are trusted."""


@dataclass(frozen=True, slots=True, eq=False)
class Named:
    """A class or function that a pickle asks for, which is not looked up.

    Attributes:
        name: ``module.name``.
    """

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Inert:
    """What stands in the place of an object that is not made.

    Attributes:
        name: of its class.
    """

    name: str


class Built(ABC):
    """What a call gives that gets its contents afterwards."""

    @abstractmethod
    def build(self, state: Any) -> None:
        """Takes what the pickle says of it."""


Call = Callable[..., Any]


def read_pickle(
    file: IO[bytes] | mmap.mmap,
    calls: Mapping[str, Call],
    *,
    other: Call = Inert,
    outside: Call | None = None,
    most: int = MOST_OPERATIONS,
) -> Any:
    """The value of one pickle, which begins where `file` stands and behind which it is left.

    Args:
        file: bytes in memory (a map or BytesIO), so that a read never gives more than there is.
        calls: what stands in the place of a call of this name (``module.name``), from its
            arguments.
        other: gives what stands in the place of other calls, from the name.
        outside: gives what a persistent id stands for; None: such are refused.
        most: operations.

    Returns:
        Plain values, lists, tuples and dicts, what `calls`, `other` and `outside` give, and
        :class:`Named` for classes and functions. A set is a list.

    Raises:
        PickleError: damaged, too long, or not plain data.
        Exception: others for other damage; a net is needed.
    """
    return _Machine(calls, other, outside, most).run(cast(IO[bytes], file))


class _Machine:
    """The stack machine."""

    def __init__(
        self, calls: Mapping[str, Call], other: Call, outside: Call | None, most: int
    ) -> None:
        self.calls, self.other, self.outside, self.most = calls, other, outside, most
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # stacks under a mark
        self.memo: dict[int, Any] = {}

    def run(self, file: IO[bytes]) -> Any:
        for count, (code, argument, _) in enumerate(pickletools.genops(file)):
            if count > self.most:
                raise PickleError(f"its pickle has more than {self.most:,} operations")
            name = code.name
            if name in _VALUES:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _MAKERS:
                self.stack.append(_MAKERS[name]())
            elif name in _OPERATIONS:
                _OPERATIONS[name](self, argument)
            elif name == "STOP":
                break
            elif name not in _NOTHING:
                raise PickleError(f"its pickle has operation {name}, which plain data has not")
        return self.stack.pop()

    def marked(self) -> list[Any]:
        """What is on the stack above the last mark, which goes."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def push_marked(self, make: Callable[[list[Any]], Any]) -> None:
        items = self.marked()
        self.stack.append(make(items))

    def pop_mark(self, _: Any) -> None:
        self.marked()

    def mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.stack = self.below.pop()

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def as_tuple(self, count: int) -> None:
        items = tuple(self.stack[-count:])
        if len(items) < count:
            raise PickleError("its pickle takes more from its stack than there is")
        self.stack[-count:] = [items]

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):
            raise PickleError(f"its pickle appends to a {type(target).__name__}")

    def update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            target.update(_pairs(items))
        elif not isinstance(target, Inert):
            raise PickleError(f"its pickle sets items of a {type(target).__name__}")

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.update([key, value])

    def append(self, _: Any) -> None:
        self.extend([self.stack.pop()])

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise PickleError("its pickle names a class by something that is no text")
        if len(module) + len(name) > _LONGEST_NAME:  # joined anew each time, however long they are
            raise PickleError("its pickle names a class that has no such long name")
        self.stack.append(Named(f"{module}.{name}"))

    def build(self, _: Any) -> None:
        state = self.stack.pop()  # an object's attributes
        if not self.stack:
            raise PickleError("its pickle takes more from its stack than there is")
        if isinstance(self.stack[-1], Built):
            self.stack[-1].build(state)

    def reduce(self, extra: int) -> None:
        """A call with what is on the stack: the callable, a tuple, `extra` more."""
        for _ in range(extra):
            self.stack.pop()
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(self.call(function, arguments))

    def obj(self, _: Any) -> None:
        function, *arguments = self.marked()
        self.stack.append(self.call(function, tuple(arguments)))

    def inst(self, argument: str) -> None:
        arguments = tuple(self.marked())
        self.stack.append(self.call(Named(argument.replace(" ", ".")), arguments))

    def persistent(self, _: Any) -> None:
        said = self.stack.pop()
        if self.outside is None:
            raise PickleError("its pickle refers to something outside of it")
        self.stack.append(self.outside(said))

    def call(self, function: Any, arguments: Any) -> Any:
        """What stands in the place of a call."""
        if not isinstance(function, Named):
            raise PickleError(f"its pickle calls a {type(function).__name__}")
        name = function.name
        module, _, last = name.rpartition(".")
        if module.partition(".")[0] in _RUNNING or (
            module in _BUILTINS and last in _RUNNING_BUILTINS
        ):
            raise CodeError(name)
        made = self.calls.get(name)
        if made is None:
            return self.other(name)
        if not isinstance(arguments, tuple) or len(arguments) > _MOST_ARGUMENTS:
            raise PickleError(f"its pickle calls {name} with what are no arguments of it")
        return made(*arguments)


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """Key, value, key, value, …"""
    if len(items) % 2:
        raise PickleError("its pickle has a key without a value")
    return {_key(items[i]): items[i + 1] for i in range(0, len(items), 2)}


def _key(key: Any) -> Any:
    """The key, or where it has parts something of its own in its place."""
    if isinstance(key, int) and key.bit_length() > 64:  # whose hash is computed each time
        return Inert("int")
    simple = key is None or isinstance(key, str | int | float | bytes)
    return key if simple else Inert(type(key).__name__)


_VALUES: Final = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
     "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
     "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)  # fmt: skip
_CONSTANTS: Final[dict[str, Any]] = {
    "NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()
}  # fmt: skip
_MAKERS: Final[dict[str, Callable[[], Any]]] = {
    "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": list
}  # fmt: skip
_NOTHING: Final = frozenset({"PROTO", "FRAME"})
_OPERATIONS: Final[dict[str, Callable[[_Machine, Any], None]]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "TUPLE": lambda machine, _: machine.push_marked(tuple),
    "TUPLE1": lambda machine, _: machine.as_tuple(1),
    "TUPLE2": lambda machine, _: machine.as_tuple(2),
    "TUPLE3": lambda machine, _: machine.as_tuple(3),
    "LIST": lambda machine, _: machine.push_marked(list),
    "FROZENSET": lambda machine, _: machine.push_marked(list),
    "DICT": lambda machine, _: machine.push_marked(_pairs),
    "APPEND": _Machine.append,
    "APPENDS": lambda machine, _: machine.extend(machine.marked()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.marked()),
    "SETITEM": _Machine.set_item,
    "SETITEMS": lambda machine, _: machine.update(machine.marked()),
    "GLOBAL": lambda machine, name: machine.stack.append(Named(name.replace(" ", "."))),
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": lambda machine, _: machine.reduce(0),
    "NEWOBJ": lambda machine, _: machine.reduce(0),
    "NEWOBJ_EX": lambda machine, _: machine.reduce(1),
    "BUILD": _Machine.build,
    "OBJ": _Machine.obj,
    "INST": _Machine.inst,
    "BINPERSID": _Machine.persistent,
}
