"""Which parameters only matmuls read: those that autocast casts at every use."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from videomae_fast.models.linear import Linear
from videomae_fast.models.patch_embed import PatchEmbed


def matmul_parameters(model: nn.Module) -> list[str]:
    """Names of the weights of linear layers and embedding, and of biases that go along with them.

    Other biases, scales and tables are read by kernels that take them in fp32, those of the
    embedding, of queries and of values among them: a copy in bf16 would round their gradients,
    which are summed in fp32.
    """
    return [f"{path}.{name}" if path else name for path, name in _found(model)]


def _found(model: nn.Module) -> Iterator[tuple[str, str]]:
    for path, module in model.named_modules():
        if isinstance(module, PatchEmbed):
            yield (f"{path}.proj" if path else "proj"), "weight"
        elif isinstance(module, nn.Linear):
            yield path, "weight"
            if isinstance(module, Linear) and module.bias is not None:
                yield path, "bias"
