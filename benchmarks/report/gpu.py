"""The README's table of training steps on GPUs: ours beside each baseline of the same record."""

from __future__ import annotations

from pathlib import Path

from benchmarks.report.newest import Result, every
from benchmarks.report.tables import Record, Run, median, mfu, require_checked, run_of, speedup
from videomae_fast.models.config import SIZES

# Columns: what they are called, and whose time they hold
AGAINST = {
    "as shipped, compiled": "official as shipped, compiled",
    "as shipped, eager": "official as shipped, eager",
    "repaired, compiled": "official repaired, compiled",
    "repaired, eager": "official repaired, eager",
    "strong": "strong",
    "Hugging Face as shipped": "Hugging Face as shipped",
    "Hugging Face repaired": "Hugging Face repaired",
}
HEAD = """\
One training step (forward, backward, update) in bf16 on a GPU, beside the official computation
(transcribed; in fp16 as shipped, with its position tables on the host, or repaired: tables and
inputs on the device), a strong baseline (repaired, bf16, fused attention, fused AdamW, compiled)
and Hugging Face's model; loss and every gradient shown equal first; a contender at a time, medians.
Ours is the fastest of eager, captured (the step as one CUDA graph) and compiled; what is launched
kernel by kernel may wait for the host. MFU is the official computation's flop over the data
sheet's."""


def gpu_block(folder: Path) -> list[str]:
    """For each size, batch, masking and card the newest record, and the newest with a baseline:
    ours may have been measured again since, and no row mixes two records.

    Raises:
        UncheckedError: a record does not show equality.
    """
    rows = _rows(folder)
    columns = [
        title
        for title, name in AGAINST.items()
        if any(_figure(result.part, name, masking) for result, masking in rows)
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


def gpu_headline(folder: Path) -> list[str]:
    """Ours against the official computation as shipped: ViT-B, the largest batch.

    Raises:
        UncheckedError: a record does not show equality.
    """
    for result, masking in _rows(folder):
        ours = fastest_of_ours(result.part, masking)
        ways = ("as shipped, compiled", "as shipped, eager")
        found = (_figure(result.part, AGAINST[way], masking) for way in ways)
        shipped = next(filter(None, found), None)
        if ours is None or shipped is None or result.part["size"] != "base" or masking != "dual":
            continue
        names = (shipped["contender"], masking), (ours["contender"], masking)
        way = shipped["contender"].rpartition(", ")[2]
        return [
            f"**{speedup(result.part, *names):.2f}×** the speed of the official computation as "
            f"shipped (transcribed, {way} PyTorch) in a training step of our model on a GPU,",
            f"dual masking, loss and every gradient shown equal first; {result.size}, "
            f"{result.machine}: {1e3 * median(shipped):.0f} ms → {1e3 * median(ours):.1f} ms "
            f"({result.data}).",
        ]
    return []


def _rows(folder: Path) -> list[tuple[Result, str]]:
    alone: dict[tuple[str, ...], Result] = {}
    compared: dict[tuple[str, ...], Result] = {}
    for result in every("baselines", folder):
        for masking in ("dual", "encoder-only"):
            if not result.on_gpu or fastest_of_ours(result.part, masking) is None:
                continue
            part = result.part
            key = (part["size"], str(part["workload"]["batch"]), result.machine, masking)
            alone[key] = result
            if any(_figure(part, name, masking) for name in AGAINST.values()):
                compared[key] = result
                del alone[key]
    pairs = [(key, result) for found in (alone, compared) for key, result in found.items()]
    pairs.sort(key=lambda pair: (SIZES.index(pair[0][0]), -int(pair[0][1]), pair[0][2:]))
    return [(result, key[3]) for key, result in pairs]


FEWEST = 3  # steps that are a figure


def _timed(run: Run) -> bool:
    """Whether more than a step or two were timed."""
    count: int = run["summary"]["total"].get("count", FEWEST)
    return count >= FEWEST


def fastest_of_ours(part: Record, masking: str) -> Run | None:
    """Of the runs of this library's model."""
    own = [
        run
        for run in part["runs"]
        if run["masking"] == masking and run["contender"].startswith("ours") and _timed(run)
    ]
    return min(own, key=median, default=None)


def _figure(part: Record, name: str, masking: str) -> Run | None:
    run = run_of(part, name, masking)
    return run if run is not None and _timed(run) else None


def _against(part: Record, name: str, ours: Run, masking: str) -> str:
    run = _figure(part, name, masking)
    if run is None:
        return ""
    ratio = speedup(part, (run["contender"], masking), (ours["contender"], masking))
    return f"{1e3 * median(run):,.4g} ms **{ratio:.2f}×**"
