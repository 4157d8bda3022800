"""Existing VideoMAE models on this library's kernels, in place and reversibly."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from videomae_fast.errors import AccelerationError
from videomae_fast.interop.acceleration.code import withdraw
from videomae_fast.interop.acceleration.plans import Plan, accept_names, make_plan, told
from videomae_fast.interop.acceleration.proof import Proof
from videomae_fast.interop.acceleration.proof import prove as compared
from videomae_fast.interop.acceleration.retype import is_form
from videomae_fast.interop.acceleration.undoable import Acceleration, Comparison

__all__ = ["Acceleration", "Comparison", "Proof", "accelerate"]


def accelerate(
    model: nn.Module,
    *,
    prove: bool = True,
    unknown_code: Literal["keep", "compare"] = "keep",
    deterministic: bool = False,
) -> Acceleration:
    """Makes a VideoMAE model of other code compute the same with this library's kernels, in place.

    Known are the models of MCG-NJU/VideoMAE and OpenGVLab/VideoMAEv2, the blocks of the authors'
    action detection, of mmaction2 and of OpenTAD, and Hugging Face's VideoMAE models
    (transformers 5): by the source of their methods, not by their names. They may be anywhere in
    `model`: in DistributedDataParallel, a PEFT model, `torch.compile`'s wrapper, a detector.
    Parameters, their names, hooks and the optimizer are untouched.

    A part whose code is not known, has hooks, or has been replaced is called as the model's own
    code calls it; that is looked at in every call, so whatever changes later counts at once.

    Besides what they took before, models take uint8 frames [B, T, H, W, 3] (a quarter of the
    upload) and :class:`videomae_fast.Masks` (no device sync) in place of normalised clips and
    boolean masks.

    Args:
        model: on any device.
        prove: compare both computations, outputs and gradients, on random weights and clips of
            the model's size; the weights come back afterwards. The report says what it cost.
        unknown_code: "keep" leaves modules that have a known class's name and other code to
            themselves; "compare" takes them for that class if the proof, over whole stacks
            then, says so. It can't see what depends on data, on the step or on chance.
        deterministic: attention that gives the same bits in every run on a GPU: by this library's
            kernels, or, under ``torch.use_deterministic_algorithms(True)``, by torch's flash
            attention in that mode, too. What else the model does is up to its own code.

    Returns:
        What was replaced and what was not; it can be undone with :meth:`Acceleration.undo`.

    Raises:
        AccelerationError: no block of the model is one that is known, or both computations differ:
            nothing is changed then. Or attention is to be deterministic and would run the model's
            own code.
        ValueError: `unknown_code` is neither of both, or can't be compared without a proof.
    """
    if unknown_code not in ("keep", "compare"):
        raise ValueError(f"unknown_code must be 'keep' or 'compare', got {unknown_code!r}")
    if unknown_code == "compare" and not prove:
        raise ValueError("unknown_code='compare' needs the proof: leave prove=False out")
    if any(is_form(module) for module in model.modules()):
        raise AccelerationError("this model is accelerated already; undo that first")
    taken = accept_names(model) if unknown_code == "compare" else []
    report: Acceleration | None = None
    try:
        plan = make_plan(model)
        _check_blocks(model, plan)
        if deterministic:
            _check_deterministic(plan)
        report = Acceleration(model, plan, deterministic=deterministic)
        if prove:
            report.proof = compared(model, plan, report.undone, thin=not taken)
    except BaseException:
        if report is not None:
            report.undo()
        for role, kind in taken:
            withdraw(role, kind)
        raise
    return report


def _check_blocks(model: nn.Module, plan: Plan) -> None:
    """
    Raises:
        AccelerationError: there is no block to accelerate.
    """
    if plan.blocks:
        return
    name = f"{type(model).__module__}.{type(model).__qualname__}"
    why = told([*plan.unknown, *plan.kept])
    if not why:
        raise AccelerationError(
            f"{name} is not a model that accelerate knows: those are the models of "
            "MCG-NJU/VideoMAE and OpenGVLab/VideoMAEv2, Hugging Face's VideoMAE models, and "
            "models with their blocks"
        )
    more = f"; and {len(why) - 4} more" if len(why) > 4 else ""
    raise AccelerationError(
        f"{name} can't be accelerated, none of its blocks is one that is known: "
        f"{'; '.join(why[:4])}{more}. If it computes the same as the known code, "
        "accelerate(model, unknown_code='compare') finds out"
    )


def _check_deterministic(plan: Plan) -> None:
    """
    Raises:
        AccelerationError: attention somewhere in the model is not this library's.
    """
    blocks = {step.path for step in plan.steps} | {path for path, _ in plan.unknown}
    own = [
        (path, why)
        for path, why in plan.kept
        if path in blocks or path.rpartition(".")[2] in ("attn", "attention")
    ]
    if own and not torch.are_deterministic_algorithms_enabled():
        raise AccelerationError(
            f"attention can't be promised to be deterministic where it runs the model's own code: "
            f"{'; '.join(told(own)[:4])}. Call torch.use_deterministic_algorithms(True) before"
        )
