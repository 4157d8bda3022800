"""The baselines on a GPU and ours beside them: who takes part, and how each is built.

Called by :mod:`benchmarks.gpu.ceilings`; on the CPU its logic is tested with tiny shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.common.workload import Masking
from benchmarks.contenders.base import Variant
from benchmarks.measure.cases import Case

BASELINES: dict[str, Variant] = {
    "official as shipped, eager": Variant("official", precision="fp16", from_host=True),
    "official as shipped, compiled": Variant(
        "official", precision="fp16", from_host=True, compiled=True
    ),
    "official repaired, eager": Variant("official", tables="repaired", precision="fp16"),
    "official repaired, compiled": Variant(
        "official", tables="repaired", precision="fp16", compiled=True
    ),
    "strong": Variant(
        "official", tables="repaired", attention="sdpa", precision="bf16", compiled=True, lean=True
    ),
    "Hugging Face as shipped": Variant("hugging-face", precision="bf16", from_host=True),
    "Hugging Face repaired": Variant("hugging-face", tables="repaired", precision="bf16"),
    "Hugging Face accelerated, two lines": Variant(
        "hugging-face", precision="bf16", from_host=True, accelerated="two lines"
    ),
    "Hugging Face accelerated, all lines": Variant(
        "hugging-face", precision="bf16", from_host=True, accelerated="all lines"
    ),
    "ours, eager": Variant("ours", precision="bf16", lean=True),
    "ours, compiled": Variant("ours", precision="bf16", lean=True, compiled=True),
    "ours, captured": Variant("ours", precision="bf16", lean=True, captured=True),
    "ours, captured, shadow weights": Variant(
        "ours", precision="bf16", lean=True, captured=True, shadow_weights=True
    ),
    "ours, captured, shadow weights, recomputing": Variant(
        "ours", precision="bf16", lean=True, captured=True, shadow_weights=True, recompute=True
    ),
    "ours, captured, shadow weights, fp8": Variant(
        "ours", precision="bf16", lean=True, captured=True, shadow_weights=True, fp8=True
    ),
    "ours, compiled and captured": Variant(
        "ours", precision="bf16", lean=True, compiled=True, captured=True
    ),
}
# Only with a checkout; its folder comes with the call.
CHECKOUTS: dict[str, Variant] = {
    "official code as shipped, eager": Variant("checkout", precision="fp16", from_host=True),
    "official code as shipped, compiled": Variant(
        "checkout", precision="fp16", from_host=True, compiled=True
    ),
    "official code repaired, eager": Variant("checkout", tables="repaired", precision="fp16"),
    "official code repaired, compiled": Variant(
        "checkout", tables="repaired", precision="fp16", compiled=True
    ),
    "official code accelerated, two lines": Variant(
        "checkout", precision="fp16", from_host=True, accelerated="two lines"
    ),
    "official code accelerated, all lines": Variant(
        "checkout", precision="fp16", from_host=True, accelerated="all lines"
    ),
}
# The official scripts of these sizes use activation checkpointing.
CHECKPOINTED = ("huge", "giant")


def variants(
    size: str, names: Sequence[str] | None = None, checkout: str | None = None
) -> dict[str, Variant]:
    """The contenders of a size, with those of a checkout of the official code where one is given.

    Those that are named come in the order of their names: where time ends, the last are left out.

    Raises:
        ValueError: a name that there is not.
    """
    known = dict(BASELINES)
    if checkout is not None:
        known |= {name: replace(v, checkout=checkout) for name, v in CHECKOUTS.items()}
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise ValueError(f"unknown baselines {unknown}; there are {', '.join(known)}")
    found = {}
    for name in known if names is None else names:
        variant = known[name]
        shipped = variant.kind in ("official", "checkout") and not variant.lean
        found[name] = replace(variant, checkpointing=shipped and size in CHECKPOINTED)
    return found


def cases(
    size: str, masking: Masking, names: Sequence[str] | None = None, checkout: str | None = None
) -> list[Case]:
    """The contenders of a size with one masking; who has no decoder mask says so when built."""
    found = variants(size, names, checkout)
    return [Case(name, variant, masking) for name, variant in found.items()]
