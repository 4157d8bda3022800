"""The README's table of training steps on GPUs: ours beside each baseline of the same record."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report.newest import Result
from benchmarks.report.tables import Record, Run, median, mfu, require_checked, run_of, speedup

# Columns: what they are called, and whose time they hold, the first that was timed
AGAINST = {
    "as shipped, compiled": ("official as shipped, compiled",),
    "as shipped, eager": ("official as shipped, eager",),
    "repaired, compiled": ("official repaired, compiled",),
    "repaired, eager": ("official repaired, eager",),
    "strong": ("strong",),
    "Hugging Face as shipped": ("Hugging Face as shipped",),
    "Hugging Face repaired": ("Hugging Face repaired",),
}
HEAD = """\
One training step (forward, backward, update) in bf16 on a GPU, beside the official computation
(transcribed; in fp16 as shipped, with its position tables on the host, or repaired: tables and
inputs on the device), a strong baseline (repaired, bf16, fused attention, fused AdamW, compiled)
and Hugging Face's model; loss and every gradient shown equal first; a contender at a time, medians.
Ours is the fastest of eager, captured and compiled; MFU is the official computation's flop over the
data sheet's."""


def gpu_block(found: Sequence[Result]) -> list[str]:
    """A row per size, batch, masking and card.

    Raises:
        UncheckedError: a record does not show equality.
    """
    rows = [
        (result, masking)
        for result in found
        if result.on_gpu
        for masking in ("dual", "encoder-only")
        if fastest_of_ours(result.part, masking) is not None
    ]
    columns = [
        title
        for title, names in AGAINST.items()
        if any(_first(result.part, names, masking) for result, masking in rows)
    ]
    if not rows or not columns:
        return []
    lines = [
        *HEAD.split("\n"),
        "",
        f"| | masking | ours | MFU | MB a clip | {' | '.join(columns)} |",
        f"|-|-|-:|-:|-:|{'-:|' * len(columns)}",
    ]
    for result, masking in rows:
        require_checked(result.part)
        ours = fastest_of_ours(result.part, masking)
        assert ours is not None
        share, memory = mfu(result.record, ours), ours.get("step_peak_bytes_per_clip")
        cells = [
            result.where,
            masking,
            f"{1e3 * median(ours):,.4g} ms ({ours['contender'].removeprefix('ours, ')})",
            "" if share is None else f"{share:.1%}",
            "" if memory is None else f"{memory / 1e6:,.0f}",
            *(_against(result.part, AGAINST[title], ours, masking) for title in columns),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def fastest_of_ours(part: Record, masking: str) -> Run | None:
    """Of the runs of this library's model."""
    own = [
        run
        for run in part["runs"]
        if run["masking"] == masking and run["contender"].startswith("ours")
    ]
    return min(own, key=median, default=None)


def _first(part: Record, names: Sequence[str], masking: str) -> Run | None:
    return next((run for name in names if (run := run_of(part, name, masking))), None)


def _against(part: Record, names: Sequence[str], ours: Run, masking: str) -> str:
    run = _first(part, names, masking)
    if run is None:
        return ""
    ratio = speedup(part, (run["contender"], masking), (ours["contender"], masking))
    return f"{1e3 * median(run):,.4g} ms **{ratio:.2f}×**"
