"""Markdown tables from recorded results.

    python -m benchmarks.tables benchmarks/results/step-….json

A speedup is printed only of what the same record shows to be the same computation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.checks import UncheckedError
from benchmarks.record import read

Record = dict[str, Any]
Run = dict[str, Any]


def require_checked(record: Record) -> None:
    """
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
        "| masking | | step, ms: median (quartiles; least) | forward / backward / update, ms "
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
            f"| {masking} | {contender} | {_ms(total['median'])} ({_ms(total['q1'])} to "
            f"{_ms(total['q3'])}; {_ms(total['least'])}) | {_phases(run)} "
            f"| {batch / total['median']:.3g} "
            f"| {run['forward_multiply_adds_per_clip'] / 1e9:.2f} "
            f"| {run['kept_for_backward_bytes_per_clip'] / 1e6:.0f} | {_memory(run)} "
            f"| {'' if ratio is None else f'**{ratio:.2f}×**'} |"
        )
    return "\n".join([*lines, *_dual_over_encoder_only(record)])


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
        f"ViT-{work['size']}, batch {work['batch']}, {machine['device']} ({machine['cpu']}"
        f"{threads}), torch {record['versions']['torch']}, native library "
        f"{record['native_library']}, {record['settings']['repeats']} steps each, interleaved; "
        f"{record['date'][:10]}, commit {record['commit']}: `{record['command']}`"
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.4g}"


def _phases(run: Run) -> str:
    names = ("forward", "backward", "update")
    if any(name not in run["summary"] for name in names):
        return ""
    return " / ".join(_ms(run["summary"][name]["median"]) for name in names)


def _memory(run: Run) -> str:
    found = run.get("peak_memory")
    if not found:
        return ""
    return f"{found['per_clip_bytes'] / 1e6:.0f} ({found['peak_bytes'] / 1e6:.0f})"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("records", type=Path, nargs="+", help="JSON files of benchmarks.step")
    for path in parser.parse_args(argv).records:
        try:
            print(step_table(read(path)) + "\n")
        except UncheckedError as error:
            print(f"{path}: no speedup is printed: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
