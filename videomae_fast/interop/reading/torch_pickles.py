"""Pickles of torch's checkpoints: where tensors lie; what else is in them stays inert."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, Final

from videomae_fast.pickles import Inert, Named, PickleError, read_pickle


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


def read_torch_pickle(
    file: IO[bytes] | mmap.mmap, storages: dict[str, StorageRecord] | None = None
) -> Any:
    """The value of one pickle, which begins where `file` stands and behind which it is left.

    Args:
        file: bytes in memory (a map or BytesIO), so that a read never gives more than there is.
        storages: gets every storage that the pickle names, by key.

    Returns:
        Plain values, lists, tuples and dicts; :class:`TensorRecord` for tensors, and
        :class:`StorageRecord`, :class:`~videomae_fast.pickles.Named` or
        :class:`~videomae_fast.pickles.Inert` for the rest. A set is a list.

    Raises:
        PickleError: damaged, too long, or not what checkpoints have.
        Exception: others for other damage; a net is needed (:mod:`.refusal`).
    """

    def storage(said: Any) -> StorageRecord:
        found = _storage(said)
        if storages is not None:
            storages[found.key] = found
        return found

    return read_pickle(file, _CALLS, outside=storage)


def _storage(said: Any) -> StorageRecord:
    if not isinstance(said, tuple) or len(said) < 5 or said[0] != "storage":
        raise PickleError("its pickle refers to something outside that is no storage")
    kind, key, _, count, *view = said[1:]
    if view and view[0] is not None:
        raise PickleError("its storages are views of others, as torch before 0.4 wrote them")
    if not (isinstance(kind, Named) and isinstance(key, str) and type(count) is int):
        raise PickleError("its pickle describes a storage by values that are none")
    return StorageRecord(kind.name.rpartition(".")[2], key, count)


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
