"""Losses of a classifier's logits."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over clips of ``-sum(target * log_softmax(logits))``, a scalar in fp32 at least.

    Args:
        logits: float [B, classes].
        target: float [B, classes], each row a distribution (mixed and smoothed labels).

    Raises:
        ValueError: shapes that differ.

    Source: SoftTargetCrossEntropy in timm/loss/cross_entropy.py.
    """
    if logits.shape != target.shape or logits.ndim != 2:
        raise ValueError(
            f"logits and target must be [B, classes], got {list(logits.shape)}, "
            f"{list(target.shape)}"
        )
    return F.cross_entropy(logits if logits.element_size() > 2 else logits.float(), target)


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean over clips of :func:`distillation_terms`, a scalar in fp32."""
    return distillation_terms(student, teacher, temperature).mean()


def distillation_terms(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Of each clip ``t² · KL(softmax(teacher / t) ‖ softmax(student / t))``, fp32 [B].

    Args:
        student: float [B, classes], logits.
        teacher: float [B, classes], logits; no gradient flows to them.
        temperature: t, above 0.

    Raises:
        ValueError: shapes that differ, or a temperature that is not above 0.

    Source: "Knowledge distillation: A good teacher is patient and consistent", arXiv 2106.05237.
    """
    if student.shape != teacher.shape or student.ndim != 2:
        raise ValueError(
            f"logits must be [B, classes] of one number of classes, got {list(student.shape)} and "
            f"{list(teacher.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature ({temperature}) must be above 0")
    told = (teacher.detach().float() / temperature).log_softmax(-1)
    said = (student.float() / temperature).log_softmax(-1)
    divergence = F.kl_div(said, told, reduction="none", log_target=True).sum(-1)
    return divergence * temperature**2
