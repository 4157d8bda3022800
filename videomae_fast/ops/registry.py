"""The ops, the backends of each, and which one serves a call.

Every op of the package takes ``impl="auto" | "triton" | "native" | "reference"``, some take more
names. "auto" goes through the op's backends in their order and takes the first that can run; an op
may have a :class:`Policy` that knows better. A backend that is asked for by name and can't run is
an error, never a silent fallback. ``videomae-fast doctor`` prints :meth:`Op.order`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from torch import Tensor

from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import _native

FP32 = (torch.float32,)
FP32_BF16 = (torch.float32, torch.bfloat16)
UP_TO_FP32 = (torch.float32, torch.bfloat16, torch.float16)
_DTYPES = (one for one in vars(torch).values() if isinstance(one, torch.dtype))
_NOT_FLOATING = frozenset(one for one in _DTYPES if not one.is_floating_point)
_NUMBERS = frozenset((int, float, bool))
DEVICES = {"cpu": "CPU", "cuda": "CUDA"}
_SHORT = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass(frozen=True)
class Backend:
    """One implementation of an op, and what can stop it.

    Attributes:
        run: the implementation; takes the op's arguments.
        title: what sentences call it.
        device: the kind of device that all tensors must be on; None: any.
        dtypes: what floating tensors, and a dtype among the arguments, may be; None: anything.
        missing: why it can't run in this process whatever the arguments, or None.
        unfit: why it can't run on these arguments beside device and dtype, or None. It is written
            with the names of the arguments that it looks at, and takes all of them once declared.
        held_back: why "auto" passes over it although it can run, or None.
        interpreted: whether ``TRITON_INTERPRET=1`` lets it run on any device.
        composite: whether it is made of torch's functions and so has their gradients: it is called
            as it is, not as a registered op.
        placed: for how many of the first arguments `device` and `dtypes` are; None: for all.
        named: whether `run` takes the arguments as one tuple that has their names; once declared
            it takes them one by one.
    """

    run: Callable[..., Any]
    title: str = "this backend"
    device: str | None = None
    dtypes: tuple[torch.dtype, ...] | None = None
    missing: Callable[[], str | None] | None = None
    unfit: Callable[..., str | None] | None = None
    held_back: Callable[[], str | None] | None = None
    interpreted: bool = False
    composite: bool = False
    placed: int | None = None
    named: bool = False
    _fine: frozenset[torch.dtype] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.dtypes is not None:
            object.__setattr__(self, "_fine", _NOT_FLOATING.union(self.dtypes))

    def why_not(self, *args: Any) -> str | None:
        """Why it can't run on these arguments of the op, or None."""
        fine, device = self._fine, self.device
        for arg in args if self.placed is None else args[: self.placed]:
            if isinstance(arg, Tensor):
                # Each call of an op comes through here: what fits is told without a call.
                if fine is None or arg.dtype in fine:
                    if device is None or (arg.is_cpu if device == "cpu" else self._is_here(arg)):
                        continue
                    remedy = " (or TRITON_INTERPRET=1)" if self.interpreted else ""
                    return f"{self.title} needs {DEVICES[device]} tensors, not {arg.device}{remedy}"
                return self._wrong_dtype(arg.dtype)
            if arg is None or type(arg) in _NUMBERS:
                continue
            if isinstance(arg, torch.dtype) and self.dtypes is not None and arg not in self.dtypes:
                return self._wrong_dtype(arg)
            if isinstance(arg, list) and isinstance(arg[0], Tensor):
                reason = replace(self, unfit=None, missing=None, placed=None).why_not(*arg)
                if reason is not None:
                    return reason
        reason = None if self.unfit is None else self.unfit(*args)
        return reason or (None if self.missing is None else self.missing())

    def impossible(self) -> str | None:
        """Why "auto" passes over it in this process whatever the arguments, or None."""
        reason = None if self.missing is None else self.missing()
        return reason or (None if self.held_back is None else self.held_back())

    def _is_here(self, tensor: Tensor) -> bool:
        return tensor.device.type == self.device or (self.interpreted and interpreted())

    def _wrong_dtype(self, dtype: torch.dtype) -> str:
        names = [_SHORT[one] for one in self.dtypes or ()]
        told = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
        return f"{self.title} takes {told}, not {dtype}"


class Policy(Protocol):
    """What "auto" prefers over the order of an op's backends.

    Attributes:
        prefer: the backend for these arguments of the op, or None: the order decides. It is written
            with the names of those that it looks at.
    """

    @property
    def prefer(self) -> Callable[..., str | None]: ...

    def told(self, device: str) -> str | None:
        """What it does on this kind of device, in words, or None: nothing."""


class Op:
    """An op's name and its backends in the order in which "auto" tries them.

    Attributes:
        policy: what goes before that order, or None.
        prefer: the policy's, of all arguments.
    """

    def __init__(
        self,
        name: str,
        backends: Mapping[str, Backend],
        policy: Policy | None = None,
        prefer: Callable[..., str | None] | None = None,
    ) -> None:
        self.name, self.backends = name, dict(backends)
        self.policy, self.prefer = policy, prefer
        self._on_cpu = self._tried("cpu")

    def _tried(self, device: str | None) -> list[tuple[str, Backend]]:
        """The backends that "auto" tries for tensors of a kind of device, in order."""
        return [one for one in self.backends.items() if one[1].device in (None, device)]

    def choose(self, impl: str, *args: Any) -> Backend:
        """The backend for these arguments.

        Raises:
            BackendUnavailableError: `impl` can't run on them, or names no backend of the op.
        """
        return self.backends[self.pick(impl, args)]

    def meant(self, impl: str) -> str:
        """A name, or what :func:`forced` makes of "auto" where this op has it."""
        if impl == "auto" and _forced:
            forced = forced_impl(self.name)
            return forced if forced in self.backends else impl
        return impl

    def pick(self, impl: str, args: tuple[Any, ...]) -> str:
        """The name of the backend for these arguments; raises as :meth:`choose` does."""
        if impl == "auto":
            impl = self.meant(impl) if _forced else impl
            if impl == "auto":
                return self._auto(args)
        if impl not in self.backends:
            known = ", ".join(["auto", *self.backends])
            raise BackendUnavailableError(f"{self.name} has no backend {impl!r}; it has {known}")
        reason = self.backends[impl].why_not(*args)
        if reason is not None:
            raise BackendUnavailableError(f"{self.name}: backend {impl!r} can't run: {reason}")
        return impl

    def _auto(self, args: tuple[Any, ...]) -> str:
        if self.prefer is not None:
            name = self.prefer(*args)
            if name is not None and self.backends[name].why_not(*args) is None:
                return name
        first = args[0][0] if isinstance(args[0], list) else args[0]
        for name, backend in self._on_cpu if first.is_cpu else self._tried(first.device.type):
            if backend.held_back is not None and backend.held_back() is not None:
                continue
            if backend.why_not(*args) is None:
                return name
        told = "; ".join(f"{n}: {b.why_not(*args)}" for n, b in self.backends.items())
        raise BackendUnavailableError(f"no backend of {self.name} can run: {told}")

    def order(self, device: str) -> dict[str, str | None]:
        """The backends that "auto" goes through for tensors of a kind of device.

        Returns:
            By name why "auto" passes over it in this process, or None. Those that come after one
            that takes every call are left out.
        """
        found: dict[str, str | None] = {}
        for name, backend in self._tried(device):
            found[name] = backend.impossible()
            if found[name] is None and backend.dtypes is None and backend.unfit is None:
                break
        return found


REGISTRY: dict[str, Op] = {}

# What "auto" means by op; EVERY is for those that are not named.
EVERY = ""
_forced: dict[str, str] = {}


@contextmanager
def forced(impl: str, **ops: str) -> Iterator[None]:
    """Makes "auto" mean this backend wherever an op has it: for tests and benchmarks.

    An op that has it but can't run with it on its arguments raises, as if asked for by name.

    Args:
        impl: of every op; "auto": as without this.
        ops: of single ops, by name: ``forced("reference", attention="auto")``.

    Raises:
        ValueError: there is no op of such a name.
    """
    global _forced
    unknown = sorted(set(ops) - set(REGISTRY))
    if unknown:
        raise ValueError(f"no op is called {', '.join(unknown)}; there are {', '.join(REGISTRY)}")
    before, _forced = _forced, {EVERY: impl, **ops}
    try:
        yield
    finally:
        _forced = before


def forced_impl(op: str) -> str:
    """What "auto" means now for this op: the backend of :func:`forced`, or "auto"."""
    return _forced.get(op, _forced.get(EVERY, "auto"))


def why_not(op: str, impl: str, *args: Any) -> str | None:
    """Why an op's backend can't run on these arguments, or None.

    Args:
        op: its name in `REGISTRY`.
        args: all arguments of the op, as its backends take them; without any, why the backend
            can't run in this process at all.
    """
    backend = REGISTRY[op].backends[impl]
    return backend.why_not(*args) if args else backend.impossible()


def native_missing() -> str | None:
    """Why the native library can't serve, or None."""
    return _native.why_missing() if _native.library() is None else None


@cache
def _triton_not_installed() -> str | None:
    if find_spec("triton") is None:
        return "triton is not installed (it exists for Linux on x86-64: pip install triton)"
    return None


def triton_missing() -> str | None:
    """Why Triton can't be used in this process, or None."""
    return _triton_not_installed()


def interpreted() -> bool:
    """Whether Triton's kernels run in its interpreter, on the CPU (``TRITON_INTERPRET=1``)."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


# What torch.compiler.assume_constant_result sets. That function imports the compiler and Triton:
# slow, and it would settle for the process whether kernels are interpreted.
for _constant in (native_missing, triton_missing, interpreted):
    setattr(_constant, "_dynamo_marked_constant", True)  # noqa: B010
