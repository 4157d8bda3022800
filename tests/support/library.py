"""The compiled library by itself: ``library.token_gather(x, index)``.

Its functions are called with the arguments of their op's reference, and no contract looks at these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from videomae_fast.ops.registry import REGISTRY


def __getattr__(op: str) -> Callable[..., Any]:
    if op not in REGISTRY:
        raise AttributeError(f"no op is called {op!r}")
    return REGISTRY[op].backends["native"].run
