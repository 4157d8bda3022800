"""The same bits every time: what torch has to be told for that, and what stands in the way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

from videomae_fast.errors import UsageError

_WORKSPACES: Final = (":4096:8", ":16:8")
_VARIABLE: Final = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def deterministic_algorithms(device: torch.device) -> Iterator[None]:
    """While entered, torch takes only algorithms that give the same bits in every run.

    Attention is then one of this library's kernels or torch's flash attention, which sum up in a
    fixed order. An operation of torch that has no such algorithm raises an error that names it.

    Raises:
        UsageError: cuBLAS was told otherwise by the environment.
    """
    if device.type == "cuda":
        said = os.environ.setdefault(_VARIABLE, _WORKSPACES[0])
        if said not in _WORKSPACES:
            raise UsageError(
                f"deterministic: {_VARIABLE} is {said!r}, with which matmuls may differ from run "
                f"to run; unset it, or set it to {' or '.join(_WORKSPACES)}"
            )
    filling: Any = torch.utils.deterministic
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = filling.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    # Kernels here write all that they make; filling it first would only cost time
    filling.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        filling.fill_uninitialized_memory = fill
