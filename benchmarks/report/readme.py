"""Fills the README's measured figures, its headline and its tables, from the newest results.

python -m benchmarks readme           # writes README.md
python -m benchmarks readme --check   # ends with 1 where README.md is not what the results say

Each stands between its own markers; one of which there is no result says how to make it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.common.command import parser_of
from benchmarks.common.processor import processor_name, processor_told
from benchmarks.common.record import RESULTS, read
from benchmarks.report.gpu import gpu_block, gpu_headline
from benchmarks.report.newest import ROOT, Result, data_link, newest
from benchmarks.report.reading import CORE_READERS, OFFICIAL, factor, require_equal
from benchmarks.report.studies import (
    MASKED,
    PAPER,
    letter,
    megabytes,
    memory_per_clip,
    names_of,
    per_clip,
    ratio,
)
from benchmarks.report.tables import Record, Run, median, require_checked, run_of
from videomae_fast.models.config import SIZES

Lines = Callable[[Path], list[str]]
"""The lines of a table from a folder of results; none where there is no result."""

README = ROOT / "README.md"
MAKE = {
    "headline": "python -m benchmarks step --size base --batch 4",
    "gpu": "make gpu-first GPU_PARTS=compiled-base",
    "benchmarks": "python -m benchmarks step --size small --batch 4",
    "drop-in": "python -m benchmarks drop-in --official-checkout VideoMAEv2",
    "paper": "make paper-table",
    "reading": "make data-bench",
}


def span(results: Sequence[Result], masking: str = "dual") -> str:
    """The speedups of these results as one, or from the least to the largest; "" of none."""
    found = [s for s in (result.speedup(masking) for result in results) if s is not None]
    if not found:
        return ""
    ends = [f"{value:.2f}×" for value in (min(found), max(found))]
    return f"**{' to '.join(dict.fromkeys(ends))}**"


def headline_block(found: Sequence[Result]) -> list[str]:
    """Dual masking's training step of the largest size, on GPUs if there are any: the range over
    all machines that it was measured on, and never the best of them alone.

    Raises:
        UncheckedError: a record does not show equality.
    """
    for result in found:
        require_checked(result.part)
    measured = [result for result in found if result.speedup("dual") is not None]
    if not measured:
        return []
    best = max(measured, key=_importance)
    alike = [result for result in measured if _importance(result) == _importance(best)]
    kind = "card" if best.on_gpu else "processor"
    on = f"one {kind} so far" if len(alike) == 1 else f"{len(alike)} {kind}s"
    return [
        f"{span(alike)} the speed of the official computation (transcribed, eager PyTorch) in a "
        "training step of our model, dual masking,",
        f"loss and every gradient shown equal first; {best.size}, on {on}: "
        + "; ".join(
            f"{_both_times(result)} on {result.machine} ({result.data})" for result in alike
        )
        + "."
        + ("" if best.on_gpu else " Not yet measured on a GPU."),
    ]


def _importance(result: Result) -> tuple[bool, int, int]:
    size, batch = result.part["size"], result.part["workload"]["batch"]
    return result.on_gpu, SIZES.index(size), batch


def _both_times(result: Result) -> str:
    times = (run_of(result.part, name, "dual") for name in ("official", "ours"))
    return " → ".join(_ms(run) for run in times if run is not None)


def steps_block(found: Sequence[Result]) -> list[str]:
    """Ours against the transcription of the official computation, on each machine; and the range
    where there is more than one.

    Raises:
        UncheckedError: a record does not show equality.
    """
    lines = [
        "One training step (forward, backward, update), fp32, against a transcription of the "
        "official computation in eager PyTorch;",
        "same weights, clips and masks, loss and every gradient shown equal first, interleaved, "
        "medians.",
        "",
        "| | masking | official | ours | speedup |",
        "|-|-|-:|-:|-:|",
    ]
    groups: dict[tuple[bool, int, int], list[Result]] = {}
    for result in found:
        require_checked(result.part)
        groups.setdefault(_importance(result), []).append(result)
    for alike in groups.values():
        for result in alike:
            for masking in ("dual", "encoder-only"):
                slow, fast = (run_of(result.part, name, masking) for name in ("official", "ours"))
                if slow is not None and fast is not None:
                    lines.append(
                        f"| {result.where} | {masking} | {_ms(slow)} | {_ms(fast)} "
                        f"| {ratio(slow, fast)} |"
                    )
        if len(alike) > 1 and not alike[0].on_gpu:
            lines += [
                f"| {alike[0].size}, {len(alike)} processors | {masking} | | "
                f"| {span(alike, masking)} |"
                for masking in ("dual", "encoder-only")
                if span(alike, masking)
            ]
    machines = {result.machine: result.record["machine"] for result in found if not result.on_gpu}
    told = [f"{name}: {processor_told(machine)}." for name, machine in machines.items()]
    only = (
        ["One processor so far: on another one the factors are others."] if len(told) == 1 else []
    )
    return [
        *lines,
        "",
        *only,
        *told,
        "Part of this is the matmul library: torch's own leaves AVX-512 unused on processors that "
        "are not Intel's. What",
        "was gained by what: [performance log](docs/performance-log.md). How to measure: "
        "[benchmarks](benchmarks).",
    ]


def drop_in_block(found: Sequence[Result]) -> list[str]:
    """Other code as it is, accelerated in two lines and in all, and ours; beside it the speedup.

    Raises:
        UncheckedError: a record does not show equality.
    """
    lines = [
        "Other code's own model and training step, the same under `accelerate` in two lines, with "
        "uint8 frames and `Masks`",
        "too (all lines), and ours; loss and every gradient shown equal first, interleaved, "
        "medians.",
        "",
        "| | code | masking | as it is | two lines | all lines | ours |",
        "|-|-|-|-:|-:|-:|-:|",
    ]
    for result in found:
        require_checked(result.part)
        where = result.where
        version = result.record.get("official_checkout", {}).get("version")
        for code, names in result.part["chains"].items():
            told = f"{code} {version}" if code == "official code" and version else code
            for masking in MASKED:
                runs = [run_of(result.part, name, masking) for name in names]
                if not any(runs[:-1]):  # ours alone
                    continue
                cells = [
                    "" if run is None else f"{_ms(run)} {ratio(runs[0], run) if i else ''}".strip()
                    for i, run in enumerate(runs)
                ]
                lines.append(f"| {where} | {told} | {masking} | {' | '.join(cells)} |")
                where = ""  # once
    return lines


def paper_block(found: Sequence[Result]) -> list[str]:
    """The paper's table of dual masking, measured, with the paper's own rows.

    Raises:
        UncheckedError: a record does not show equality.
    """
    lines = [
        "The VideoMAE V2 paper's table of dual masking, measured: time and memory per clip with "
        "the encoder's mask only → with",
        "dual masking. In italics the paper's own figures, hours of pre-training on its GPUs: "
        "compare the ratios.",
        "",
        "| | | G multiply-adds | memory, MB per clip | time | dual faster by |",
        "|-|-|-:|-:|-:|-:|",
    ]
    sizes = [result.part["size"] for result in found]
    for i, result in enumerate(found):
        part, size, where = result.part, result.part["size"], result.where
        require_checked(part)
        for name in names_of(part):
            alone, dual = (run_of(part, name, masking) for masking in MASKED)
            if alone is None or dual is None:
                continue
            pair = (alone, dual)
            adds = " → ".join(f"{r['forward_multiply_adds_per_clip'] / 1e9:.2f}" for r in pair)
            memory = " → ".join(megabytes(memory_per_clip(run)) for run in pair)
            time = " → ".join(f"{1e3 * per_clip(run, part):,.4g}" for run in pair)
            lines.append(
                f"| {where} | {name} | {adds} | {memory.strip(' →')} | {time} ms "
                f"| {ratio(alone, dual)} |"
            )
            where = ""  # once
        if size in PAPER and size not in sizes[i + 1 :]:
            row = PAPER[size]
            adds, memory, time = (
                " → ".join(f"{row[masking][k]:,.5g}" for masking in MASKED) for k in range(3)
            )
            lines.append(
                f"| *ViT-{letter(size)}* | *the paper's* | *{adds}* | *{memory}* | *{time} h* "
                f"| *{row['speedup']:.2f}×* |"
            )
    return lines


def reading_block(folder: Path) -> list[str]:
    """Views per second, and over the official path on files as they are; of each device.

    Raises:
        UncheckedError: a record does not show that all read the same.
    """
    newest_of: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.glob("data-speed-*.json"), key=lambda path: path.stem[-15:]):
        record = read(path)
        if record["source"] == "real" and record["runs"]:
            machine = record["machine"]
            newest_of.pop((machine["device"], machine["cpu"]), None)  # it did not tell the family
            newest_of[machine["device"], processor_name(machine)] = path
    lines: list[str] = []
    for path in newest_of.values():
        record = read(path)
        require_equal(record)
        runs = {(run["contender"], run["form"]): run for run in record["runs"]}
        official = runs[OFFICIAL, "raw"]
        if not lines:
            lines = _reading_head(record)
        machine, place = record["machine"], data_link(path)
        card = "" if machine["device"] == "cpu" else f"{machine['device']}, "
        lines.append(
            f"| {card}{processor_name(machine)} ({place}) "
            f"| official: decord, PIL, files as they are | {official['views_per_s']:,.0f} | | |"
        )
        for run in record["runs"]:
            if run["contender"] == OFFICIAL:
                continue
            if run["place"] != "core" or run["contender"] == CORE_READERS[run["form"]]:
                lines.append(_reading_row(record, run))
    return lines


def _reading_head(record: Record) -> list[str]:
    work = record["settings"]
    return [
        f"Reading videos: views of {work['frames']} frames at stride {work['stride']}, "
        f"{work['samples']} of each decode; the same frames and crops, pixels within 1 grey level "
        "before normalisation.",
        "The pipeline's loader processes share the processor with the process that takes the "
        "batches.",
        "",
        "| | | views/s of a core | over official, files as they are | views/s of the pipeline |",
        "|-|-|-:|-:|-:|",
    ]


def _reading_row(record: Record, run: Run) -> str:
    told = {"raw": "files as they are", "prepared": "prepared", "cached": "prepared and cached"}
    name = told[run["form"]]
    if run["place"] != "core":
        name += f", {run['contender'].removeprefix('ours, ')}"
    whole = ""
    for row in record["pipeline"]:
        if run["place"] == "core" and row["form"] == run["form"] and row.get("crop_on") == "worker":
            whole = f"{row['views_per_s']:,.0f} ({row['workers']} processes)"
    return (
        f"| | ours: {name} | {run['views_per_s']:,.0f} | **{factor(record, run, 'raw'):.1f}×** "
        f"| {whole} |"
    )


def _of_models(kind: str, lines_of: Callable[[Sequence[Result]], list[str]]) -> Lines:
    def lines(folder: Path) -> list[str]:
        found = newest(kind, folder)
        return lines_of(found) if found else []

    return lines


def _headline(folder: Path) -> list[str]:
    """One number: of a GPU, where one was measured."""
    return gpu_headline(folder) or _of_models("step", headline_block)(folder)


BLOCKS: dict[str, Lines] = {
    "headline": _headline,
    "gpu": gpu_block,
    "benchmarks": _of_models("step", steps_block),
    "drop-in": _of_models("drop-in", drop_in_block),
    "paper": _of_models("paper", paper_block),
    "reading": reading_block,
}


def block(name: str, folder: Path = RESULTS) -> str:
    """The lines between the markers of this name.

    Raises:
        UncheckedError: a record does not show equality.
    """
    lines = BLOCKS[name](folder)
    if not lines:
        return f"Not measured yet: `{MAKE[name]}`, then `python -m benchmarks readme`."
    return "\n".join(lines)


def filled(text: str, name: str, content: str) -> str:
    """The README with the content between the markers of this name.

    Raises:
        ValueError: each of them has to be there once.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"README.md needs {begin} and {end}, each once")
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{content}\n{end}{after}"


def _ms(run: Run) -> str:
    return f"{1e3 * median(run):,.0f} ms"


def arguments() -> argparse.ArgumentParser:
    """The parser of ``readme``."""
    parser = parser_of("readme", __doc__, out=False)
    parser.add_argument("--check", action="store_true", help="write nothing")
    return parser


def main(argv: Sequence[str]) -> int:
    """Fills in the README.

    Returns:
        With --check: 1 where it is not what the results say.
    """
    args = arguments().parse_args(argv)
    text = README.read_text(encoding="utf-8")
    wanted = text
    for name in BLOCKS:
        wanted = filled(wanted, name, block(name))
    if args.check:
        return 0 if text == wanted else 1
    README.write_text(wanted, encoding="utf-8")
    return 0
