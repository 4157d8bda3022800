"""Markdown tables of the studies: the paper's table, the breakdown, the ablations.

Each is made from a record alone, and only of what the record shows to be the same computation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.common.processor import machine_name
from benchmarks.report.tables import (
    PEAK,
    Record,
    Run,
    median,
    mfu,
    ms,
    require_checked,
    run_of,
    spread,
)

# VideoMAE V2 paper, section 4.2: G multiply-adds, MB per clip and hours of pre-training with the
# encoder's mask only and with dual masking, and its speedup. ViT-B on Something-Something V2,
# ViT-g on UnlabeledHybrid.
PAPER: dict[str, dict[str, Any]] = {
    "base": {"encoder-only": (35.48, 631, 28.4), "dual": (25.87, 328, 15.9), "speedup": 1.79},
    "giant": {"encoder-only": (263.93, 1753, 356), "dual": (241.61, 1050, 241), "speedup": 1.48},
}
MASKED = {"encoder-only": "encoder's mask only", "dual": "dual"}


def heading(record: Record) -> str:
    """One line: what was run on what, with what, when, by which command."""
    settings, on = record["settings"], machine_name(record["machine"])
    code = record.get("official_checkout")
    official = f"; official code {code['version']}, commit {code['commit']}" if code else ""
    tiny = "TINY SHAPES, TO TEST THE SCRIPT: the figures say nothing; " if settings["tiny"] else ""
    return (
        f"{tiny}{on}, torch {record['versions']['torch']}, "
        f"native library {record['native_library']}; up to {settings['repeats']} steps each, "
        "interleaved, medians (quartiles; least)"
        f"{official}; {record['date'][:10]}, commit {record['commit']}: `{record['command']}`"
    )


def gpu(record: Record) -> bool:
    """Whether a record is of a GPU."""
    return bool(record["machine"]["device"] != "cpu")


def per_clip(run: Run, part: Record) -> float:
    """Seconds."""
    return median(run) / float(part["workload"]["batch"])


def memory_per_clip(run: Run) -> float | None:
    """Peak bytes above weights and what lay there before: of the GPU, or of the process."""
    if "step_peak_bytes_per_clip" in run:
        return float(run["step_peak_bytes_per_clip"])
    if "peak_memory" in run:
        return float(run["peak_memory"]["per_clip_bytes"])
    return None


def megabytes(value: float | None) -> str:
    """Whole MB; "" where nothing was measured."""
    return "" if value is None else f"{value / 1e6:,.0f}"


def rate_title(record: Record) -> str:
    """MFU where the device's data sheet is known, else the rate itself."""
    known = any(name in record["machine"]["device"] for name in PEAK)
    return "MFU" if known else "official GFLOP/s"


def rate(record: Record, run: Run) -> str:
    """Of the official computation's flop: 6 times its forward multiply-adds by second."""
    share = mfu(record, run)
    if share is not None:
        return f"{share:.1%}"
    return f"{run['official_flop_per_second'] / 1e9:,.0f}"


def left_out(part: Record) -> list[str]:
    """A line for each contender that was not timed."""
    return [
        f"* {place(part)}{masking}, {name}: not timed, {why}"
        for masking, by_name in part["failed"].items()
        for name, why in by_name.items()
    ]


def place(part: Record) -> str:
    """Which point of a study a line is of; "" in studies with one point of a size."""
    return f"ViT-{letter(part['size'])}, {part['value']}, " if "value" in part else ""


def letter(size: str) -> str:
    """How the papers name a size: S, B, L, H, g."""
    return "g" if size == "giant" else size[0].upper()


def ratio(slow: Run | None, fast: Run | None) -> str:
    """How many times faster the second run is, in bold; "" where one is missing."""
    return "" if slow is None or fast is None else f"**{median(slow) / median(fast):.2f}×**"


def names_of(part: Record) -> list[str]:
    """The contenders of a part, in the order of its runs."""
    return list(dict.fromkeys(run["contender"] for run in part["runs"]))


def official_of(part: Record) -> str | None:
    """The contender that the others are compared with: the first that is not ours."""
    for run in part["runs"]:
        if run["variant"]["kind"] != "ours":
            return str(run["contender"])
    return None


def paper_table(record: Record) -> str:
    """Dual masking over the encoder's mask only, official and ours, and the paper's own row.

    Raises:
        UncheckedError: the record does not show equality.
    """
    lines = [
        heading(record),
        "",
        "| | | masking | G multiply-adds | memory, MB per clip | ms per clip | clips/s "
        f"| {rate_title(record)} | faster than the official one by | dual over encoder-only |",
        "|-|-|-|-:|-:|-:|-:|-:|-:|-:|",
    ]
    notes: list[str] = []
    for part in record["parts"]:
        require_checked(part)
        where = f"ViT-{letter(part['size'])}, batch {part['workload']['batch']}"
        official = official_of(part)
        for name in names_of(part):
            for masking, told in MASKED.items():
                run = run_of(part, name, masking)
                if run is None:
                    continue
                seconds = per_clip(run, part)
                slow = None if official in (None, name) else run_of(part, str(official), masking)
                alone = run_of(part, name, "encoder-only") if masking == "dual" else None
                lines.append(
                    f"| {where} | {name} | {told} "
                    f"| {run['forward_multiply_adds_per_clip'] / 1e9:.2f} "
                    f"| {megabytes(memory_per_clip(run))} | {ms(seconds)} | {1 / seconds:.4g} "
                    f"| {rate(record, run)} | {ratio(slow, run)} | {ratio(alone, run)} |"
                )
        lines += _papers_rows(part["size"])
        notes += [f"* ViT-{letter(part['size'])}, {line[2:]}" for line in left_out(part)]
    lines += [
        "",
        "Rows in italics are the paper's figures (VideoMAE V2, hours of pre-training on its "
        "GPUs), not measured here. Multiply-adds are of one clip's forward pass; memory is the "
        "peak of a step above weights, gradients and optimizer.",
    ]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _papers_rows(size: str) -> list[str]:
    found = []
    for masking, told in MASKED.items():
        if size in PAPER:
            adds, memory, hours = PAPER[size][masking]
            speedup = f"*{PAPER[size]['speedup']:.2f}×*" if masking == "dual" else ""
            found.append(
                f"| ViT-{letter(size)} | *the paper's* | *{told}* | *{adds:.2f}* | *{memory:,}* "
                f"| *{hours:g} h* | | | | {speedup} |"
            )
    return found


def gains(part: Record) -> list[tuple[str, Run, float | None]]:
    """The chain's links that were timed: name, run, and seconds of a step that it saves over the
    link before it; None for the first.
    """
    found: list[tuple[str, Run, float | None]] = []
    for name, masking in part["chain"]:
        run = run_of(part, name, masking)
        if run is not None:
            saved = median(found[-1][1]) - median(run) if found else None
            found.append((name, run, saved))
    return found


def breakdown_table(record: Record) -> str:
    """Each thing switched on after the other, with what it gains over the one before.

    Raises:
        UncheckedError: the record does not show equality.
    """
    lines = [heading(record)]
    for part in record["parts"]:
        require_checked(part)
        links = gains(part)
        lines += [
            "",
            f"ViT-{letter(part['size'])}, batch {part['workload']['batch']}: each row has what "
            "the rows above it have.",
            "",
            "| switched on | step, ms | G multiply-adds | kept for backward, MB per clip "
            f"| peak, MB per clip | {rate_title(record)} | faster than the row above by "
            "| share of all that is gained | than the first row by |",
            "|-|-|-:|-:|-:|-:|-:|-:|-:|",
        ]
        gained = median(links[0][1]) - median(links[-1][1]) if links else 0.0
        before: Run | None = None
        for name, run, saved in links:
            share = "" if saved is None or not gained else f"{saved / gained:.0%}"
            lines.append(
                f"| {name} | {spread(run['summary']['total'])} "
                f"| {run['forward_multiply_adds_per_clip'] / 1e9:.2f} "
                f"| {megabytes(run['kept_for_backward_bytes_per_clip'])} "
                f"| {megabytes(memory_per_clip(run))} | {rate(record, run)} "
                f"| {ratio(before, run)} | {share} | {ratio(links[0][1], run)} |"
            )
            before = run
        lines += ["", *_data_path(part), *left_out(part)]
    return "\n".join(lines)


def _data_path(part: Record) -> list[str]:
    lines = [
        "A loader's work after decoding and cropping, one thread, before the step's clock starts:",
        "",
        "| | ms per clip | MB per clip handed to the step |",
        "|-|-|-:|",
    ]
    for name in ("official", "ours"):
        row = part["data_path"][name]
        told = {
            "official": "official: normalised fp32 clips, boolean masks",
            "ours": "ours: uint8 clips, seeds",
        }[name]
        lines.append(
            f"| {told} | {spread(row['seconds_per_clip'])} | {row['bytes_per_clip'] / 1e6:.2f} |"
        )
    return [*lines, ""]


def ablation_table(record: Record) -> str:
    """Time and memory by what is varied, each contender also against its first point.

    Raises:
        UncheckedError: the record does not show equality.
    """
    lines = [
        heading(record),
        "",
        f"| {record['name']} | | batch | G multiply-adds | ms per clip | clips/s "
        f"| {rate_title(record)} | kept for backward, MB per clip | peak, MB per clip "
        "| faster than the official one by | time, of the first row's |",
        "|-|-|-:|-:|-:|-:|-:|-:|-:|-:|-:|",
    ]
    notes: list[str] = []
    first: dict[str, float] = {}
    for part in record["parts"]:
        require_checked(part)
        notes += left_out(part)
        official = official_of(part)
        for run in part["runs"]:
            name, seconds = run["contender"], per_clip(run, part)
            slow = None
            if official not in (None, name):
                slow = run_of(part, str(official), run["masking"])
            first.setdefault(name, seconds)
            lines.append(
                f"| {part['value']} | ViT-{letter(part['size'])}, {name} "
                f"| {part['workload']['batch']} "
                f"| {run['forward_multiply_adds_per_clip'] / 1e9:.2f} | {ms(seconds)} "
                f"| {1 / seconds:.4g} | {rate(record, run)} "
                f"| {megabytes(run['kept_for_backward_bytes_per_clip'])} "
                f"| {megabytes(memory_per_clip(run))} | {ratio(slow, run)} "
                f"| {seconds / first[name]:.2f} |"
            )
    return "\n".join([*lines, *([""] if notes else []), *notes])


def drop_in_table(record: Record) -> str:
    """Other code as it is, under ``accelerate`` in two lines and in all, and ours.

    Raises:
        UncheckedError: the record does not show equality.
    """
    lines = [
        heading(record),
        "",
        "| | | masking | step, ms: median (quartiles; least) | clips/s | G multiply-adds "
        "| kept for backward, MB per clip | faster than as it is by | ours is faster by |",
        "|-|-|-|-:|-:|-:|-:|-:|-:|",
    ]
    notes: list[str] = []
    for part in record["parts"]:
        require_checked(part)
        for name in drop_in_names(part):
            original = next((c[0] for c in part["chains"].values() if name in c[1:-1]), None)
            for masking, told in MASKED.items():
                run = run_of(part, name, masking)
                if run is None:
                    continue
                before = run_of(part, original, masking) if original else None
                ours = run_of(part, drop_in_names(part)[-1], masking)
                lines.append(
                    f"| ViT-{letter(part['size'])}, batch {part['workload']['batch']} | {name} "
                    f"| {told} | {spread(run['summary']['total'])} "
                    f"| {1 / per_clip(run, part):.4g} "
                    f"| {run['forward_multiply_adds_per_clip'] / 1e9:.2f} "
                    f"| {megabytes(run['kept_for_backward_bytes_per_clip'])} "
                    f"| {ratio(before, run)} | {'' if run is ours else ratio(run, ours)} |"
                )
        notes += left_out(part)
    lines += [
        "",
        "Two lines: the import and `accelerate(model)`, all else as it was. All lines: uint8 "
        "frames and Masks, too, and `masked_pixel_loss` for the official targets and loss; the "
        "optimizer stays. Ours: this library's model and step.",
    ]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def drop_in_names(part: Record) -> list[str]:
    """The contenders of all chains, ours, which ends each of them, last."""
    chains = list(part["chains"].values())
    return [*(name for chain in chains for name in chain[:-1]), chains[0][-1]]


TABLES: dict[str, Callable[[Record], str]] = {
    "paper": paper_table,
    "breakdown": breakdown_table,
    "ablation": ablation_table,
    "drop-in": drop_in_table,
}
