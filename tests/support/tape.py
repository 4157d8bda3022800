"""A stand-in for a CUDA graph on the CPU: operations as torch dispatches them, run again.

Like a graph's replay it calls no Python of the model: it repeats the operations that were recorded
on the very tensors that they had, so whatever does not lie in a tensor that keeps its place is as
it was when it was recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero")
"""Operations that would make the host wait for a GPU."""


class Tape(TorchDispatchMode):
    """Records operations: (function, arguments, results)."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Callable[[], None]] = []
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.name().split("::")[1].split(".")[0]
        assert name not in READS, f"{func} in a recorded step"
        out = func(*args, **kwargs)
        self.names.append(name)
        made = [each for each in tree_leaves(out) if isinstance(each, Tensor)]
        given = {
            each.untyped_storage().data_ptr()
            for each in tree_leaves((args, kwargs))
            if isinstance(each, Tensor) and each.numel()
        }
        # Views and results of operations in place lie where what was given lies
        own = [m.numel() > 0 and m.untyped_storage().data_ptr() not in given for m in made]
        if made and not any(own) and not func._schema.is_mutable:
            return out

        def again() -> None:
            new = [each for each in tree_leaves(func(*args, **kwargs)) if isinstance(each, Tensor)]
            for old, value, place in zip(made, new, own, strict=True):
                if place:
                    old.detach().copy_(value)

        self.steps.append(again)
        return out


class TapeRecorder:
    """What a CudaRecorder is on a GPU. calls: in order, for tests to look at."""

    def __init__(self, warm_up: int = 2) -> None:
        self.warm_up = warm_up
        self.calls: list[str] = []
        self.tape = Tape()
        self._seeds: dict[int, int] = {}
        self._recording = False

    def seed(self, number: int, seed: int) -> None:
        self.calls.append(f"seed {number}")
        self._seeds[number] = seed

    def draw_from(self, number: int) -> None:
        if self._recording:
            self.tape.steps.append(lambda: self._draw_from(number))
        self._draw_from(number)

    def record(self, run: Callable[[], None], clear: Callable[[], None]) -> Callable[[], None]:
        for _ in range(self.warm_up):
            self.calls.append("run")
            run()
        clear()
        self.calls.append("record")
        self._recording = True
        with self.tape:
            run()
        self._recording = False
        return self._replay

    @torch.no_grad()
    def _replay(self) -> None:
        self.calls.append("replay")
        for step in self.tape.steps:
            step()

    def _draw_from(self, number: int) -> None:
        torch.manual_seed(self._seeds[number])
