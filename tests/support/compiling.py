"""A backend of torch.compile for tests of graphs, quicker than those that compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import SymInt
from torch._dynamo.backends.registry import lookup_backend


def traced(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
    """AOTAutograd, as before every compiler, of what has symbols; other graphs run as they are.

    What it makes of symbols, a backward graph too, is where sizes can go wrong.
    """
    symbolic = any(isinstance(each, SymInt) for each in inputs)
    made: Callable[..., Any] = lookup_backend("aot_eager" if symbolic else "eager")(graph, inputs)
    return made
