"""bf16 copies of fp32 weights for forward and backward, written once a step by the update.

Autocast casts a weight for each use, and the gradient back: hundreds of launches a step. Here the
model holds the copies, gradients are made in bf16 straight into them, and the update casts all of
these at once, works in fp32 on the masters, and writes the copies anew. Checkpoints, norms, moments
and updates see the masters only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Shadows:
    """Puts copies of parameters into a model, in their places.

    The parameters themselves, which an optimizer may hold already, become the masters.

    Args:
        model: on its device; its parameters are not shared between modules.
        names: of the parameters that get a copy; frozen ones may be among them.
        dtype: of the copies and their gradients.
    """

    def __init__(
        self, model: nn.Module, names: Iterable[str], dtype: torch.dtype = torch.bfloat16
    ) -> None:
        places = []
        self.masters: list[nn.Parameter] = []
        self.copies: list[nn.Parameter] = []
        for name in names:
            path, _, own = name.rpartition(".")
            module = model.get_submodule(path)
            master = module.get_parameter(own)
            copy = nn.Parameter(master.detach().to(dtype), requires_grad=master.requires_grad)
            self.masters.append(master)
            self.copies.append(copy)
            places.append((module, own))
        self._places = places
        self._put(self.copies)

    @torch.no_grad()
    def hand_over(self) -> None:
        """Gives the copies' gradients to the masters, in fp32."""
        pairs = [
            (master, copy.grad)
            for master, copy in zip(self.masters, self.copies, strict=True)
            if copy.grad is not None
        ]
        for master, _ in pairs:
            master.grad = torch.empty_like(master)
        grads = [master.grad for master, _ in pairs if master.grad is not None]
        torch._foreach_copy_(grads, [grad for _, grad in pairs])
        for copy in self.copies:
            copy.grad = None

    @torch.no_grad()
    def write(self) -> None:
        """Writes the copies anew, from masters that have changed."""
        torch._foreach_copy_(list[Tensor](self.copies), list[Tensor](self.masters))

    @contextmanager
    def away(self) -> Iterator[None]:
        """While entered the model holds the masters, under their names; they may be written."""
        self._put(self.masters)
        try:
            yield
        finally:
            self.write()
            self._put(self.copies)

    def _put(self, parameters: list[nn.Parameter]) -> None:
        for (module, name), parameter in zip(self._places, parameters, strict=True):
            setattr(module, name, parameter)
