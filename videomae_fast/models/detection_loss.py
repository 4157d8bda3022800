"""The loss of a detector's logits."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def detection_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy, summed over boxes, mean over classes; a scalar in fp32 at least.

    A batch with more people weighs more, as officially. Without a box it is 0, with a gradient.

    Args:
        logits: float [N, classes].
        target: [N, classes], 1 for each action of the box and 0 for others.

    Raises:
        ValueError: shapes that differ.

    Source: the official AVA code, whose mean over all values is multiplied by the boxes.
    """
    if logits.shape != target.shape or logits.ndim != 2:
        raise ValueError(
            f"logits and target must be [boxes, classes], got {list(logits.shape)}, "
            f"{list(target.shape)}"
        )
    logits = logits if logits.element_size() > 2 else logits.float()
    total = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="sum")
    return total / logits.shape[1]
