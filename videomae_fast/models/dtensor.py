"""Whether a tensor is spread over processes, without importing what spreads tensors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor
    from typing_extensions import TypeIs


def is_dtensor(tensor: Tensor) -> TypeIs[DTensor]:
    """Whether a tensor is a DTensor.

    ``torch.distributed.tensor`` takes about a second to import, as long as torch itself; where
    nobody has imported it there is none.

    Args:
        tensor: any tensor.

    Returns:
        Whether it is one.
    """
    kind = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)
    return kind is not None and isinstance(tensor, kind)
