"""Markdown tables of a training step and of the baselines, and what all tables are made with.

A speedup is printed only of what the same record shows to be the same computation.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.common.processor import processor_name
from benchmarks.measure.checks import UncheckedError

Record = dict[str, Any]
Run = dict[str, Any]


def require_checked(record: Record) -> None:
    """Checks that a record shows each of its runs to be the same computation.

    Raises:
        UncheckedError: a check failed, or a run has none.
    """
    checks = {(c["masking"], c["contender"]): c for c in record["checks"]}
    for run in record["runs"]:
        found = checks.get((run["masking"], run["contender"]))
        if found is None:
            raise UncheckedError(f"{run['contender']}, {run['masking']}: was never checked")
    for (masking, contender), found in checks.items():
        if not found["passed"]:
            raise UncheckedError(
                f"{contender}, {masking}: differs from {found['reference']} "
                f"(loss by {found['loss_error']:.1e}, gradient by {found['gradient_error']:.1e})"
            )


def run_of(record: Record, contender: str, masking: str) -> Run | None:
    """The run of a contender with a masking; None where there is none."""
    for run in record["runs"]:
        if (run["contender"], run["masking"]) == (contender, masking):
            found: Run = run
            return found
    return None


def median(run: Run) -> float:
    """Seconds of a step."""
    value: float = run["summary"]["total"]["median"]
    return value


def speedup(record: Record, slow: tuple[str, str], fast: tuple[str, str]) -> float | None:
    """Ratio of the medians of two (contender, masking); None where one was not run.

    Raises:
        UncheckedError: the record does not show equality.
    """
    require_checked(record)
    one, other = run_of(record, *slow), run_of(record, *fast)
    return None if one is None or other is None else median(one) / median(other)


def step_table(record: Record) -> str:
    """Times of every run, speedup over the official computation, dual over encoder-only.

    Raises:
        UncheckedError: the record does not show equality.
    """
    require_checked(record)
    batch = record["workload"]["batch"]
    lines = [
        _head(record),
        "",
        f"| {_way(record)} | | step, ms: median (quartiles; least) "
        "| forward / backward / update, ms "
        "| clips/s | G multiply-adds forward | kept for backward, MB per clip "
        "| peak, MB per clip above weights (in all) | speedup |",
        "|-|-|-|-|-|-|-|-|-|",
    ]
    for run in record["runs"]:
        masking, contender = run["masking"], run["contender"]
        total = run["summary"]["total"]
        ratio = None
        if contender != "official":
            ratio = speedup(record, ("official", masking), (contender, masking))
        lines.append(
            f"| {masking} | {contender} | {spread(total)} | {_phases(run)} "
            f"| {batch / total['median']:.3g} "
            f"| {run['forward_multiply_adds_per_clip'] / 1e9:.2f} "
            f"| {run['kept_for_backward_bytes_per_clip'] / 1e6:.0f} | {_memory(run)} "
            f"| {'' if ratio is None else f'**{ratio:.2f}×**'} |"
        )
    return "\n".join([*lines, *_dual_over_encoder_only(record)])


def _way(record: Record) -> str:
    """What "masking" of a run says."""
    return "mixing" if record["kind"] == "fine-tuning step" else "masking"


# Dense bf16 by data sheet, FLOP/s
PEAK = {"H100": 989e12, "H200": 989e12}


def mfu(record: Record, run: Run) -> float | None:
    """The official computation's flop over what the GPU's data sheet allows; None elsewhere."""
    for name, peak in PEAK.items():
        if name in record["machine"]["device"]:
            share: float = run["official_flop_per_second"] / peak
            return share
    return None


def baseline_table(record: Record, ours: str = "ours, compiled") -> str:
    """Times of the baselines on a GPU, and how many times faster `ours` is.

    Raises:
        UncheckedError: the record does not show equality.
    """
    require_checked(record)
    batch = record["workload"]["batch"]
    lines = [
        _head(record),
        "",
        f"| masking | | step, ms: median (quartiles; least) | clips/s | MFU "
        f"| memory above weights, MB per clip | `{ours}` is faster by |",
        "|-|-|-|-|-|-|-|",
    ]
    for run in record["runs"]:
        masking, contender, total = run["masking"], run["contender"], run["summary"]["total"]
        ratio = None
        if contender != ours:
            ratio = speedup(record, (contender, masking), (ours, masking))
        share, peak = mfu(record, run), run.get("step_peak_bytes_per_clip")
        lines.append(
            f"| {masking} | {contender} | {spread(total)} | {batch / total['median']:.4g} "
            f"| {'' if share is None else f'{share:.1%}'} "
            f"| {'' if peak is None else f'{peak / 1e6:.0f}'} "
            f"| {'' if ratio is None else f'**{ratio:.2f}×**'} |"
        )
    for masking, failed in record["failed"].items():
        lines += ["", *(f"* {masking}, {name}: not timed, {why}" for name, why in failed.items())]
    return "\n".join([*lines, *_yardsticks(record), *_dual_over_encoder_only(record)])


def _dual_over_encoder_only(record: Record) -> list[str]:
    rows = []
    for contender in dict.fromkeys(run["contender"] for run in record["runs"]):
        ratio = speedup(record, (contender, "encoder-only"), (contender, "dual"))
        if ratio is None:
            continue
        alone, dual = run_of(record, contender, "encoder-only"), run_of(record, contender, "dual")
        assert alone is not None
        assert dual is not None

        def over(key: str, a: Run = alone, d: Run = dual) -> float:
            quotient: float = a[key] / d[key]
            return quotient

        rows.append(
            f"| {contender} | {ratio:.2f}× | {over('forward_multiply_adds_per_clip'):.2f}× "
            f"| {over('kept_for_backward_bytes_per_clip'):.2f}× |"
        )
    if not rows:
        return []
    head = "| encoder-only over dual | time | multiply-adds | kept for backward |"
    return ["", head, "|-|-|-|-|", *rows]


def _head(record: Record) -> str:
    work, machine = record["workload"], record["machine"]
    threads = f", {machine['threads']} threads" if work["device"] == "cpu" else ""
    return (
        f"ViT-{work['size']}, batch {work['batch']}, {machine['device']} ({processor_name(machine)}"
        f"{threads}), torch {record['versions']['torch']}, native library "
        f"{record['native_library']}, {record['settings']['repeats']} steps each, "
        f"{'interleaved' if record['settings']['interleaved'] else 'one after another'}; "
        f"{record['date'][:10]}, commit {record['commit']}: `{record['command']}`"
    )


def _yardsticks(record: Record) -> list[str]:
    """What the card itself was like while contenders were timed one after another."""
    found = [
        run["yardstick"][when]
        for run in record["runs"]
        for when in ("before", "after")
        if "yardstick" in run
    ]
    if not found:
        return []
    middle = statistics.median(found)
    return [
        "",
        f"A fixed product, timed before and after each: {min(found) / middle:.3f} to "
        f"{max(found) / middle:.3f} of its median. Ratios closer to 1 than that say nothing.",
    ]


def ms(seconds: float) -> str:
    """Milliseconds, four digits."""
    return f"{seconds * 1e3:.4g}"


def spread(total: dict[str, float]) -> str:
    """Milliseconds: median (quartiles; least)."""
    quartiles = f"{ms(total['q1'])} to {ms(total['q3'])}"
    return f"{ms(total['median'])} ({quartiles}; {ms(total['least'])})"


def _phases(run: Run) -> str:
    names = ("forward", "backward", "update")
    if any(name not in run["summary"] for name in names):
        return ""
    return " / ".join(ms(run["summary"][name]["median"]) for name in names)


def _memory(run: Run) -> str:
    found = run.get("peak_memory")
    if not found:
        return ""
    return f"{found['per_clip_bytes'] / 1e6:.0f} ({found['peak_bytes'] / 1e6:.0f})"
