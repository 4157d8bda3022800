"""Existing VideoMAE models on this library's kernels, in place and reversibly."""

from __future__ import annotations

from torch import nn

from videomae_fast.errors import AccelerationError
from videomae_fast.interop.acceleration.plans import recognised
from videomae_fast.interop.acceleration.retype import original_class
from videomae_fast.interop.acceleration.undoable import Acceleration, Comparison

__all__ = ["Acceleration", "Comparison", "accelerate"]


def accelerate(model: nn.Module) -> Acceleration:
    """Makes a VideoMAE model of other code compute the same with this library's kernels, in place.

    Known are the pre-training and classification models of MCG-NJU/VideoMAE and
    OpenGVLab/VideoMAEv2, and Hugging Face's VideoMAEForPreTraining, VideoMAEModel and
    VideoMAEForVideoClassification (transformers 5). Parameters, their names, hooks and the
    optimizer are untouched. Call it before ``torch.compile``; before or after
    DistributedDataParallel.

    Besides what they took before, models take uint8 frames [B, T, H, W, 3] (a quarter of the
    upload) and :class:`videomae_fast.Masks` (no device sync) in place of normalised clips and
    boolean masks.

    Returns:
        What was replaced and what was not; it can be undone with :meth:`Acceleration.undo`.

    Raises:
        AccelerationError: a model that is not known, or has something that this library does not
            compute (dropout within blocks, cosine attention, ...): nothing was changed then.
    """
    inner = model
    if isinstance(model, nn.parallel.DistributedDataParallel):
        inner = model.module
    if hasattr(inner, "_orig_mod"):
        raise AccelerationError("accelerate the model before torch.compile, not after")
    if any(original_class(module) is not None for module in inner.modules()):
        raise AccelerationError("this model is accelerated already; undo that first")
    plan = recognised(inner)
    if plan is None:
        raise AccelerationError(
            f"{type(inner).__module__}.{type(inner).__qualname__} is not a model that accelerate "
            "knows: those are the pre-training and classification models of MCG-NJU/VideoMAE and "
            "OpenGVLab/VideoMAEv2 and Hugging Face's VideoMAE models, with their own forward"
        )
    if plan.problems:
        told = "; ".join(plan.problems[:4])
        more = f"; and {len(plan.problems) - 4} more" if len(plan.problems) > 4 else ""
        raise AccelerationError(f"{plan.model} can't be accelerated: {told}{more}")
    return Acceleration(inner, plan)
