"""Which backend serves an op, and why another one can't.

Every op of the package takes ``impl="auto" | "triton" | "native" | "reference"``. "auto" takes the
first backend of the op's list that can run; a backend asked for by name that can't run is an error,
never a silent fallback. The choice is made inside the registered op, so that ``torch.compile``
doesn't have to look through it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import _native

WhyNot = Callable[..., str | None]


@dataclass(frozen=True)
class Backend:
    """One implementation of an op.

    Attributes:
        run: the implementation; takes the op's arguments.
        why_not: takes the same arguments, returns why it can't run on them, or None if it can.
    """

    run: Callable[..., Any]
    why_not: WhyNot


@dataclass(frozen=True)
class Op:
    """An op's name and its backends, the preferred one first."""

    name: str
    backends: Mapping[str, Backend]

    def choose(self, impl: str, *args: Any) -> Backend:
        """The backend for these arguments.

        Raises:
            BackendUnavailableError: `impl` can't run on them, or names no backend of the op.
        """
        if impl == "auto" and forced_impl(self.name) in self.backends:
            impl = forced_impl(self.name)
        if impl == "auto":
            reasons = {}
            for name, backend in self.backends.items():
                if name == "triton" and interpreted():
                    reasons[name] = "Triton's interpreter serves only when asked for by name"
                    continue
                reason = backend.why_not(*args)
                if reason is None:
                    return backend
                reasons[name] = reason
            told = "; ".join(f"{name}: {why}" for name, why in reasons.items())
            raise BackendUnavailableError(f"no backend of {self.name} can run: {told}")
        if impl not in self.backends:
            known = ", ".join(["auto", *self.backends])
            raise BackendUnavailableError(f"{self.name} has no backend {impl!r}; it has {known}")
        backend = self.backends[impl]
        reason = backend.why_not(*args)
        if reason is not None:
            raise BackendUnavailableError(f"{self.name}: backend {impl!r} can't run: {reason}")
        return backend

    def __call__(self, impl: str, *args: Any) -> Any:
        return self.choose(impl, *args).run(*args)


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


def register(name: str, **backends: Backend) -> Op:
    """Makes an op known to the package and to its doctor; the preferred backend comes first."""
    op = Op(name, backends)
    REGISTRY[name] = op
    return op


def always(*_: Any) -> str | None:
    """The predicate of a reference: it runs everywhere."""
    return None


def lazy(module: str, function: str) -> Callable[..., Any]:
    """A launcher of ``videomae_fast.kernels.<module>``, whose import waits for the first call.

    So the ops can be imported where Triton can't.
    """

    def run(*args: Any) -> Any:
        return getattr(import_module(f"videomae_fast.kernels.{module}"), function)(*args)

    return run


def native_missing() -> str | None:
    """Why the native library can't serve, or None."""
    return None if _native.library() is not None else _native.why_missing()


def needs_native(*tensors: torch.Tensor | None) -> str | None:
    """Why the native library can't serve these tensors, or None."""
    for tensor in tensors:
        if tensor is not None and tensor.device.type != "cpu":
            return f"the native library works on CPU tensors, not on {tensor.device}"
    return native_missing()


@cache
def triton_missing() -> str | None:
    """Why Triton can't be used in this process, or None."""
    if find_spec("triton") is None:
        return "triton is not installed (it exists for Linux on x86-64: pip install triton)"
    return None


def interpreted() -> bool:
    """Whether Triton's kernels run in its interpreter, on the CPU (``TRITON_INTERPRET=1``)."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def needs_triton(*tensors: torch.Tensor | None) -> str | None:
    """Why Triton can't serve these tensors, or None."""
    reason = triton_missing()
    if reason is not None:
        return reason
    for tensor in tensors:
        if tensor is not None and tensor.device.type != "cuda" and not interpreted():
            return f"Triton needs CUDA tensors, not {tensor.device} (or TRITON_INTERPRET=1)"
    return None
