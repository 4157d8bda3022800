"""What a training step has to move and to compute, op by op, and how long that takes.

A :class:`Recorder` watches the dispatcher while a step runs, on real tensors or on fake ones, which
need neither a GPU nor memory. Of each op's call it notes the bytes that must be read and written at
least (each value once) and the floating-point operations of its matmuls. With what a card can do,
:class:`Ceilings`, that gives two times:

* the floor: the longer of moving the bytes at the copy bandwidth and computing at the matmul rate;
* the modelled time: the same at the share of either that a good kernel of that kind reaches.

Views, allocations and what only the host does cost nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

LABEL = "step-model:"


@dataclass(frozen=True)
class Ceilings:
    """What a card can do: bytes per second of a copy (read + written), flop per second in bf16."""

    name: str
    copy: float
    matmul: float


# Measured on cards of these names: a large copy, and an 8192³ product of random data.
KNOWN = (Ceilings("H100", 3.0e12, 798e12), Ceilings("H200", 4.3e12, 790e12))


@dataclass(frozen=True)
class Call:
    """One call of an op.

    Attributes:
        op: its name, "aten::mm".
        shapes: of its tensors, "20480×768, 768×3072".
        phase: "forward", "backward" or "update".
        read, written: bytes, each value once.
        flop: of matmuls.
        inner: a matmul's smallest side, else 0: narrow ones reach less of the rate.
        passes: of `read` and `written`, what other kernels of the call move before its matmuls.
    """

    op: str
    shapes: str
    phase: str
    read: int
    written: int
    flop: int
    inner: int = 0
    passes: int = 0

    @property
    def bytes(self) -> int:
        """Read and written."""
        return self.read + self.written

    def floor(self, card: Ceilings) -> float:
        """Seconds, at least."""
        compute = self.flop / (card.matmul * SPEEDS.get(self.op, 1.0))
        return self.passes / card.copy + max((self.bytes - self.passes) / card.copy, compute)

    def modelled(self, card: Ceilings) -> float:
        """Seconds, by a good kernel: see :func:`shares`."""
        of_copy, of_matmul = shares(self)
        compute = self.flop / (card.matmul * of_matmul * SPEEDS.get(self.op, 1.0))
        before, move = self.passes / (card.copy * OTHERS), (self.bytes - self.passes) / card.copy
        return before + max(move / of_copy, compute)


# Shares of the copy bandwidth that kernels of ours are to reach; of all others .85 is expected.
COPY_SHARES = {
    "videomae_fast::add_layer_norm": 0.92,
    "videomae_fast::add_layer_norm_fp8": 0.92,
    "videomae_fast::bias_gelu": 0.93,
    "videomae_fast::bias_gelu_fp8": 0.93,
    "videomae_fast::bias_gelu_backward": 0.93,
    "videomae_fast::patch_gather": 0.65,
}
OTHERS = 0.85
# Rates of matmuls in fp8, where bf16's is 1: tensor cores are twice as fast; for kernels with
# scales by row 1.7 is expected, which none of ours were seen to reach yet. Backward has one
# product in fp8 and one in bf16.
FP8_SPEED = 1.7
SPEEDS = {
    "videomae_fast::fp8_linear": FP8_SPEED,
    "videomae_fast::fp8_linear_backward": 2 / (1 + 1 / FP8_SPEED),
}
# Attention: of the copy bandwidth where it is short, of the matmul rate where it is long.
ATTENTION = {"forward": (0.75, 0.47), "backward": (0.75, 0.43)}


def is_attention(op: str) -> bool:
    """Whether an op is attention, forward or backward."""
    return "attention" in op and "softmax" not in op


def shares(call: Call) -> tuple[float, float]:
    """Of the copy bandwidth and of the matmul rate, as a good kernel of this kind reaches them."""
    if is_attention(call.op):
        return ATTENTION["backward" if "backward" in call.op else "forward"]
    if call.inner:  # a library's matmul
        narrow = ((256, 0.60), (512, 0.68), (1024, 0.80))
        return OTHERS, next((share for width, share in narrow if call.inner < width), 0.86)
    return COPY_SHARES.get(call.op, OTHERS), 1.0


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each call that has something to do on the device.

    Args:
        labelled: each call runs in a range of the profiler called ``step-model:<its number>``.
    """

    def __init__(self, *, labelled: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # Not at the top: it imports Triton, which settles whether kernels are interpreted
        from torch.utils.flop_counter import flop_registry

        import videomae_fast.ops.flop_formulas  # noqa: F401

        self.calls: list[Call] = []
        self.phase = "forward"
        self._labelled = labelled
        self._flop: Mapping[Any, Callable[..., int]] = flop_registry

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":  # questions such as a tensor's device
            return func(*args, **kwargs)
        if not self._labelled:
            out = func(*args, **kwargs)
        else:
            with torch.profiler.record_function(f"{LABEL}{len(self.calls)}"):
                out = func(*args, **kwargs)
        read, written = moved(func, args, kwargs, out)
        before = _PASSES[func._schema.name](args) if func._schema.name in _PASSES else 0
        count = self._flop.get(func._overloadpacket)
        flop = int(count(*args, **kwargs, out_val=out)) if count is not None else 0
        # A labelled call stays, whatever it moves: its number is its label
        if read or written or flop or self._labelled:
            given = [value for value in args if isinstance(value, Tensor)]
            self.calls.append(
                Call(
                    func._schema.name,
                    ", ".join("×".join(map(str, value.shape)) or "1" for value in given[:4])
                    or _list_shapes(args),
                    self.phase,
                    read + before,
                    written,
                    flop,
                    _inner(func, given) if flop else 0,
                    before,
                )
            )
        return out


def _list_shapes(args: Sequence[Any]) -> str:
    """Of an op that takes lists: how many tensors, and of how many values."""
    lists = [value for value in args if isinstance(value, (list, tuple))]
    tensors = [value for value in (lists[0] if lists else ()) if isinstance(value, Tensor)]
    return f"{len(tensors)} tensors, {sum(t.numel() for t in tensors):,} values" if tensors else ""


def _inner(func: Any, given: Sequence[Tensor]) -> int:
    """A matmul's smallest side, of M, K and N."""
    if is_attention(func._schema.name) or len(given) < 2:
        return 0
    name = func._schema.name
    if "fp8_linear" in name:  # of many tokens; the weight's place is the schema's
        return min(given[2 if name.endswith("_backward") else 3].shape)
    return min(side for tensor in given[-2:] for side in tensor.shape[-2:])


# What writes its argument without reading it.
_OVERWRITTEN = {"aten::copy_", "aten::fill_", "aten::zero_", "aten::_foreach_zero_"}
# What only the host does, or what fills nothing.
_FREE = {
    "aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty",
    "aten::new_empty_strided", "aten::_local_scalar_dense", "videomae_fast::gradient_root",
}  # fmt: skip


def moved(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> tuple[int, int]:
    """Bytes that a call reads and writes, each value once; (0, 0) for a view."""
    name = func._schema.name
    if name in _FREE:
        return 0, 0
    made = list(_tensors(out))
    if name in _PICKING:
        return _PICKING[name](args, made), sum(map(_bytes, made))
    given: dict[Any, Tensor] = {}
    changed: dict[Any, Tensor] = {}
    for argument, value in _arguments(func, args, kwargs):
        info = argument.alias_info
        for tensor in _tensors(value):
            given[_place(tensor)] = tensor
            if info is not None and info.is_write:
                changed[_place(tensor)] = tensor
    if not changed and made:
        storages = {tensor.untyped_storage()._cdata for tensor in given.values()}
        if all(tensor.untyped_storage()._cdata in storages for tensor in made):
            return 0, 0
    if name in _OVERWRITTEN:
        for place in changed:
            given.pop(place, None)
    fresh = {_place(tensor): tensor for tensor in made if _place(tensor) not in changed}
    written = sum(map(_bytes, changed.values())) + sum(map(_bytes, fresh.values()))
    return sum(map(_bytes, given.values())), written


def _arguments(
    func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[tuple[Any, Any]]:
    """Each declared argument with its value, where one was given."""
    for place, argument in enumerate(func._schema.arguments):
        if place < len(args):
            yield argument, args[place]
        elif argument.name in kwargs:
            yield argument, kwargs[argument.name]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return (
        tensor.untyped_storage()._cdata,
        tensor.storage_offset(),
        tuple(tensor.shape),
        tuple(tensor.stride()),
    )


def _bytes(tensor: Tensor) -> int:
    """Of the values there are: an expanded dimension is there once."""
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return int(prod(size if step else min(size, 1) for size, step in pairs)) * tensor.itemsize


def _picked(args: Sequence[Any], made: Sequence[Tensor]) -> int:
    """Rows that are picked out: what is written, and which."""
    which = [tensor for tensor in _tensors(args) if not tensor.is_floating_point()]
    return sum(map(_bytes, made)) + sum(map(_bytes, which))


def _patches(args: Sequence[Any], made: Sequence[Tensor]) -> int:
    """patch_gather(frames, index, …): a byte for every value that is made."""
    return made[0].numel() + _bytes(args[1])


def _last_rows(args: Sequence[Any], made: Sequence[Tensor]) -> int:
    """append_rows_backward(grad, index, …): the gradient of the appended rows alone."""
    grad, index = args[0], args[1]
    return int(index.numel() * grad.shape[-1] * grad.itemsize) + _bytes(index)


def _pixels(prediction: int) -> Callable[[Sequence[Any], Sequence[Tensor]], int]:
    """pixel_mse…(prediction, frames, index, …): predictions, and as many pixels."""

    def read(args: Sequence[Any], made: Sequence[Tensor]) -> int:
        predicted = args[prediction]
        return _bytes(predicted) + int(predicted.numel()) + _bytes(args[prediction + 2])

    return read


def _rounded_input(args: Sequence[Any], made: Sequence[Tensor]) -> int:
    """fp8_linear(x, values, scale, weight, …): x itself is for backward."""
    return sum(map(_bytes, _tensors(args[1:3]))) + sum(map(_bytes, _tensors(args[4:])))


def _rounded_weight(args: Sequence[Any]) -> int:
    """fp8_linear: the weight is rounded, and read so by the matmul."""
    return _bytes(args[3]) + 2 * int(args[3].numel())


def _rounded_gradient(args: Sequence[Any]) -> int:
    """fp8_linear_backward(grad, x, weight, …): gradient and weight are rounded, the weight then
    transposed, and both read so; the matmul of the weight's gradient reads grad and x."""
    grad, weight = args[0], args[2]
    return _bytes(grad) + 2 * int(grad.numel()) + 4 * int(weight.numel())


# Bytes that an op moves before its matmul, beside what it is given and makes.
_PASSES: dict[str, Callable[[Sequence[Any]], int]] = {
    "videomae_fast::fp8_linear": _rounded_weight,
    "videomae_fast::fp8_linear_backward": _rounded_gradient,
}
# Bytes read by ops that don't read all of what they are given.
_PICKING: dict[str, Callable[[Sequence[Any], Sequence[Tensor]], int]] = {
    "videomae_fast::token_gather": _picked,
    "videomae_fast::fp8_linear": _rounded_input,
    "videomae_fast::patch_gather": _patches,
    "videomae_fast::append_rows_backward": _last_rows,
    "videomae_fast::pixel_mse": _pixels(0),
    "videomae_fast::pixel_mse_with_gradient": _pixels(0),
    "videomae_fast::pixel_mse_backward": _pixels(1),
    "aten::index": _picked,
    "aten::index_select": _picked,
    "aten::gather": _picked,
    "aten::embedding": _picked,
}
