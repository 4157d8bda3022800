"""Pickles read as plain data: no class is looked up, and nothing in them is called.

A pickle is a program for a stack machine, and most of its operations only put values together.
Those are done here. A call gives an inert record of the name that it asks for, except for the few
that say where a tensor lies in the file. So whatever stands beside the weights (an argparse
namespace, NumPy numbers, paths, objects of classes that are not installed) is read past, and stays
what it is: bytes.

Keys of dicts are values without parts, since comparing others can take forever. Nothing here
recurses.
"""

from __future__ import annotations

import mmap
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, Final, cast

MOST_OPERATIONS: Final = 1_000_000
"""About a second of work, and far more than a checkpoint has (ViT-g, optimizer too: 100,000)."""

_MOST_ARGUMENTS: Final = 16
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
    """A pickle that is damaged, or has operations that no checkpoint needs."""


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


@dataclass(frozen=True, slots=True, eq=False)
class StorageRecord:
    """A storage in the file.

    Attributes:
        kind: its type's name, ``FloatStorage`` say.
        key: its name in the file.
        count: its elements.
    """

    kind: str
    key: str
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class TensorRecord:
    """A tensor in the file: its storage, and what of it, in elements. Nothing is checked yet.

    Attributes:
        dtype: of the elements where the storage's type does not say it: ``torch.uint16`` say.
    """

    storage: StorageRecord
    offset: Any
    shape: Any
    stride: Any
    dtype: str | None = None


def read_pickle(
    file: IO[bytes] | mmap.mmap, storages: dict[str, StorageRecord] | None = None
) -> Any:
    """The value of one pickle, which begins where `file` stands and behind which it is left.

    Args:
        file: bytes in memory (a map or BytesIO), so that a read never gives more than there is.
        storages: gets every storage that the pickle names, by key.

    Returns:
        Plain values, lists, tuples and dicts; :class:`TensorRecord` for tensors, and
        :class:`StorageRecord`, :class:`Named` or :class:`Inert` for the rest. A set is a list.

    Raises:
        PickleError: damaged, too long, or not what checkpoints have.
        Exception: others for other damage; a net is needed (:mod:`.refusal`).
    """
    return _Machine({} if storages is None else storages).run(cast(IO[bytes], file))


class _Machine:
    """The stack machine."""

    def __init__(self, storages: dict[str, StorageRecord]) -> None:
        self.storages = storages
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # stacks under a mark
        self.memo: dict[int, Any] = {}

    def run(self, file: IO[bytes]) -> Any:
        for count, (code, argument, _) in enumerate(pickletools.genops(file)):
            if count > MOST_OPERATIONS:
                raise PickleError(f"its pickle has more than {MOST_OPERATIONS:,} operations")
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
                raise PickleError(f"its pickle has operation {name}, which torch never writes")
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
        self.stack.append(Named(f"{module}.{name}"))

    def build(self, _: Any) -> None:
        self.stack.pop()  # an object's attributes
        if not self.stack:
            raise PickleError("its pickle takes more from its stack than there is")

    def reduce(self, extra: int) -> None:
        """A call with what is on the stack: the callable, a tuple, `extra` more."""
        for _ in range(extra):
            self.stack.pop()
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(_call(function, arguments))

    def obj(self, _: Any) -> None:
        function, *arguments = self.marked()
        self.stack.append(_call(function, tuple(arguments)))

    def inst(self, argument: str) -> None:
        arguments = tuple(self.marked())
        self.stack.append(_call(Named(argument.replace(" ", ".")), arguments))

    def storage(self, _: Any) -> None:
        found = _storage(self.stack.pop())
        self.storages[found.key] = found
        self.stack.append(found)


def _storage(said: Any) -> StorageRecord:
    if not isinstance(said, tuple) or len(said) < 5 or said[0] != "storage":
        raise PickleError("its pickle refers to something outside that is no storage")
    kind, key, _, count, *view = said[1:]
    if view and view[0] is not None:
        raise PickleError("its storages are views of others, as torch before 0.4 wrote them")
    if not (isinstance(kind, Named) and isinstance(key, str) and type(count) is int):
        raise PickleError("its pickle describes a storage by values that are none")
    return StorageRecord(kind.name.rpartition(".")[2], key, count)


def _call(function: Any, arguments: Any) -> Any:
    """What a call gives: a tensor's place, a container, or an inert record."""
    if not isinstance(function, Named):
        raise PickleError(f"its pickle calls a {type(function).__name__}")
    name = function.name
    module, _, last = name.rpartition(".")
    if module.partition(".")[0] in _RUNNING or (module in _BUILTINS and last in _RUNNING_BUILTINS):
        raise CodeError(name)
    made = _CALLS.get(name)
    if made is None:
        return Inert(name)
    if not isinstance(arguments, tuple) or len(arguments) > _MOST_ARGUMENTS:
        raise PickleError(f"its pickle calls {name} with what are no arguments of it")
    return made(*arguments)


def _tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, *more: Any, dtype: str | None = None
) -> Any:
    """torch._utils._rebuild_tensor and _rebuild_tensor_v2."""
    if not isinstance(storage, StorageRecord):
        return Inert("tensor without a storage")
    if len(more) > 2 and more[2]:
        return Inert("tensor with the conj or neg bit")
    return TensorRecord(storage, offset, shape, stride, dtype)


def _tensor_of(
    storage: Any, offset: Any, shape: Any, stride: Any, _: Any, __: Any, dtype: Any, *more: Any
) -> Any:
    """torch._utils._rebuild_tensor_v3, which says the dtype."""
    if not isinstance(dtype, Named):
        return Inert("tensor without a dtype")
    return _tensor(storage, offset, shape, stride, None, None, *more[:1], dtype=dtype.name)


def _subclass(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """torch._tensor._rebuild_from_type_v2: a tensor with attributes, or of another class."""
    name = function.name if isinstance(function, Named) else ""
    return _TENSORS[name](*arguments) if name in _TENSORS else Inert("tensor of another class")


def _dict(*arguments: Any) -> Any:
    """A dict of another class, which is filled later. Python 2 gave its items here."""
    return Inert("collections.OrderedDict of Python 2") if arguments else {}


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """Key, value, key, value, …"""
    if len(items) % 2:
        raise PickleError("its pickle has a key without a value")
    return {_key(items[i]): items[i + 1] for i in range(0, len(items), 2)}


def _key(key: Any) -> Any:
    """The key, or where it has parts something of its own in its place."""
    simple = key is None or isinstance(key, str | int | float | bytes)
    return key if simple else Inert(type(key).__name__)


_TENSORS: Final[dict[str, Callable[..., Any]]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of,
}
_CALLS: Final[dict[str, Callable[..., Any]]] = {
    **_TENSORS,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "torch.nn.parameter.Parameter": lambda data, *_: data,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "collections.OrderedDict": _dict,
    "collections.defaultdict": lambda *_: {},
    "torch.Size": lambda sizes: sizes,
}
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
    "BINPERSID": _Machine.storage,
}
