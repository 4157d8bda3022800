"""Plots from recorded results.

python -m benchmarks plots benchmarks/results/step-….json benchmarks/results/paper-….json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common.command import parser_of
from benchmarks.common.processor import machine_name
from benchmarks.common.record import read_of
from benchmarks.report.demo import plot_demo
from benchmarks.report.distillation import plot_distillation
from benchmarks.report.gestures import plot_gestures
from benchmarks.report.reading import require_equal
from benchmarks.report.studies import (
    drop_in_names,
    gains,
    letter,
    memory_per_clip,
    names_of,
    per_clip,
)
from benchmarks.report.study import plot_pilot, plot_study
from benchmarks.report.tables import Record, Run, median, require_checked, run_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"official": "#9aa5b1", "accelerated": "#7fb3d9", "ours": "#1f77b4"}


def plot_step(record: Record, path: Path) -> Path:
    """Bars of the median step with quartiles, every single time as a dot; PNG or SVG by suffix.

    Raises:
        UncheckedError: the record does not show equality.
    """
    require_checked(record)
    maskings = list(dict.fromkeys(run["masking"] for run in record["runs"]))
    names = list(dict.fromkeys(run["contender"] for run in record["runs"]))
    figure = _figure(6.4, 3.6)
    axes = figure.add_subplot()
    width = 0.8 / len(names)
    for i_name, name in enumerate(names):
        for i_masking, masking in enumerate(maskings):
            run = run_of(record, name, masking)
            if run is None:
                continue
            x = i_masking + (i_name - (len(names) - 1) / 2) * width
            total, seconds = run["summary"]["total"], run["seconds"]["total"]
            middle = median(run)
            label = name if i_masking == 0 else None
            colour = COLOURS.get(name)
            spread = [[middle - total["q1"]], [total["q3"] - middle]]
            axes.bar(x, middle, width * 0.92, color=colour, label=label, yerr=spread, capsize=3)
            axes.plot([x] * len(seconds), seconds, ".", color="black", markersize=3, alpha=0.5)
            axes.annotate(
                f"{middle:.3g} s", (x, 0), xytext=(0, 4), textcoords="offset points", ha="center"
            )
    axes.set_xticks(range(len(maskings)), maskings)
    axes.set_ylabel("training step, s (median, quartiles)")
    axes.set_ylim(bottom=0)
    work, machine = record["workload"], record["machine"]
    axes.set_title(
        f"ViT-{work['size']}, batch {work['batch']}, {machine['device']}, "
        f"{machine['threads']} threads, {record['date'][:10]}",
        fontsize=10,
    )
    axes.legend(frameon=False)
    return _saved(figure, path)


def plot_paper(record: Record, path: Path) -> Path:
    """Bars of the time per clip and of the memory per clip, by size, contender and masking.

    Raises:
        UncheckedError: the record does not show equality.
    """
    bars: list[tuple[str, Run, float]] = []
    for part in record["parts"]:
        require_checked(part)
        for name in names_of(part):
            for masking, told in (("encoder-only", "encoder's mask"), ("dual", "dual")):
                run = run_of(part, name, masking)
                if run is not None:
                    text = f"ViT-{letter(part['size'])}, {name}, {told}"
                    bars.append((text, run, 1e3 * per_clip(run, part)))
    figure = _figure(9.6, 1.2 + 0.3 * len(bars))
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(bars))
    colours = [_colour(run) for _, run, _ in bars]
    left.barh(places, [value for _, _, value in bars], color=colours)
    memory = [(memory_per_clip(run) or 0.0) / 1e6 for _, run, _ in bars]
    right.barh(places, memory, color=colours)
    left.set_yticks(places, [text for text, _, _ in bars])
    left.invert_yaxis()
    for axes, label in ((left, "ms per clip"), (right, "peak memory, MB per clip")):
        for container in axes.containers:
            axes.bar_label(container, fmt="%.4g", padding=2, fontsize=8)
        axes.set_xlabel(label)
        axes.margins(x=0.15)
    _entitle(figure, record, "dual masking")
    return _saved(figure, path)


def plot_breakdown(record: Record, path: Path) -> Path:
    """The step's time after each thing that is switched on.

    Raises:
        UncheckedError: the record does not show equality.
    """
    parts = record["parts"]
    for part in parts:
        require_checked(part)
    links = [(part, gains(part)) for part in parts]
    figure = _figure(8.0, 1.2 + 0.32 * sum(len(found) for _, found in links))
    for i, (part, found) in enumerate(links):
        axes = figure.add_subplot(len(links), 1, i + 1)
        _step_bars(axes, [(name, run) for name, run, _ in found])
        axes.set_xlabel("training step, ms (median, quartiles)")
        axes.set_title(f"ViT-{letter(part['size'])}, batch {part['workload']['batch']}", fontsize=9)
    _entitle(figure, record, "one thing switched on after the other")
    return _saved(figure, path)


def plot_ablation(record: Record, path: Path) -> Path:
    """Time and memory per clip against what is varied: lines over numbers, bars over names.

    Raises:
        UncheckedError: the record does not show equality.
    """
    parts = record["parts"]
    for part in parts:
        require_checked(part)
    values = [part["value"] for part in parts]
    peaks = all(memory_per_clip(run) is not None for part in parts for run in part["runs"])
    lines: dict[str, list[tuple[Any, float, float]]] = {}
    for part in parts:
        for run in part["runs"]:
            kept: float = run["kept_for_backward_bytes_per_clip"]
            memory = (memory_per_clip(run) if peaks else kept) or 0.0
            row = (part["value"], 1e3 * per_clip(run, part), memory / 1e6)
            lines.setdefault(run["contender"], []).append(row)
    what = "peak memory" if peaks else "kept for backward"
    figure = _figure(9.6, 3.8)
    left, right = figure.subplots(1, 2)
    words = any(isinstance(value, str) for value in values)
    width = 0.8 / max(1, len(lines))
    for i, (name, rows) in enumerate(lines.items()):
        for axes, column in ((left, 1), (right, 2)):
            x = [values.index(row[0]) for row in rows]
            y = [row[column] for row in rows]
            if words:  # nothing lies between two masks or two sizes
                shift = (i - (len(lines) - 1) / 2) * width
                axes.bar([place + shift for place in x], y, width * 0.92, label=name)
            else:
                axes.plot([values[place] for place in x], y, "o-", label=name, markersize=4)
    for axes, label in ((left, "ms per clip"), (right, f"{what}, MB per clip")):
        if words:
            axes.set_xticks(range(len(values)), values, rotation=45, ha="right", fontsize=8)
        else:
            axes.set_xticks(values, [str(value) for value in values])
        axes.set_xlabel(record["name"])
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
    left.legend(frameon=False, fontsize=8)
    _entitle(figure, record, f"cost by {record['name']}")
    return _saved(figure, path)


def plot_drop_in(record: Record, path: Path) -> Path:
    """Bars of the step: other code as it is, accelerated, and ours, by masking.

    Raises:
        UncheckedError: the record does not show equality.
    """
    groups: list[tuple[str, list[tuple[str, Run]]]] = []
    for part in record["parts"]:
        require_checked(part)
        for masking in dict.fromkeys(run["masking"] for run in part["runs"]):
            found = [(name, run_of(part, name, masking)) for name in drop_in_names(part)]
            title = f"ViT-{letter(part['size'])}, batch {part['workload']['batch']}, {masking}"
            groups.append((title, [(name, run) for name, run in found if run is not None]))
    figure = _figure(8.0, 1.2 + sum(0.6 + 0.32 * len(runs) for _, runs in groups))
    heights = [2 + len(runs) for _, runs in groups]
    panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=heights)
    for axes, (title, runs) in zip(panels[:, 0], groups, strict=True):
        _step_bars(axes, runs)
        axes.set_title(title, fontsize=9)
    panels[-1, 0].set_xlabel("training step, ms (median, quartiles)")
    _entitle(figure, record, "other code, accelerated, and ours")
    return _saved(figure, path)


def plot_data_speed(record: Record, path: Path) -> Path:
    """Bars of the views per second, by form of the files and contender; quartiles where timed.

    Raises:
        UncheckedError: the record does not show that all read the same.
    """
    require_equal(record)
    runs = record["runs"]
    figure = _figure(8.0, 1.4 + 0.36 * len(runs))
    axes = figure.add_subplot()
    values = [run["views_per_s"] for run in runs]
    part = ["total" if run["place"] == "core" else "view" for run in runs]
    spread = [
        [
            abs(v * run["summary"][p]["median"] / run["summary"][p][q] - v)
            for v, run, p in zip(values, runs, part, strict=True)
        ]
        for q in ("q3", "q1")
    ]
    kinds = ["official" if run["contender"] == "official" else "ours" for run in runs]
    colours = [COLOURS[kind] for kind in kinds]
    bars = axes.barh(range(len(runs)), values, xerr=spread, color=colours, capsize=2)
    axes.bar_label(bars, fmt="%.3g", padding=4, fontsize=8)
    names = [f"{run['form']}: {run['contender']} ({run['place']})" for run in runs]
    axes.set_yticks(range(len(runs)), names, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("views/s of one core, or of the device (median, quartiles)")
    _entitle(figure, record, f"{record['settings']['samples']} views of each decode")
    return _saved(figure, path)


PLOTS: dict[str, Callable[[Record, Path], Path]] = {
    "training step": plot_step,
    "fine-tuning step": plot_step,
    "paper": plot_paper,
    "breakdown": plot_breakdown,
    "ablation": plot_ablation,
    "drop-in": plot_drop_in,
    "data speed": plot_data_speed,
    "distillation": plot_distillation,
    "augmentation": plot_data_speed,
    "demo seeds": plot_demo,
    "gestures": plot_gestures,
    "study": plot_study,
    "study pilot": plot_pilot,
}


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _step_bars(axes: Axes, runs: Sequence[tuple[str, Run]]) -> None:
    """One bar below the other, in ms, with quartiles."""
    values = [1e3 * median(run) for _, run in runs]
    spread = [
        [1e3 * abs(run["summary"]["total"][q] - median(run)) for _, run in runs]
        for q in ("q1", "q3")
    ]
    colours = [_colour(run) for _, run in runs]
    bars = axes.barh(range(len(runs)), values, xerr=spread, color=colours, capsize=2)
    axes.bar_label(bars, fmt="%.4g", padding=4, fontsize=8)
    axes.set_yticks(range(len(runs)), [name for name, _ in runs], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)


def _saved(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def _colour(run: Run) -> str:
    if run["variant"]["kind"] == "ours":
        return COLOURS["ours"]
    changed = run["variant"].get("accelerated", "no") != "no"  # not in older records
    return COLOURS["accelerated" if changed else "official"]


def _entitle(figure: Figure, record: Record, what: str) -> None:
    on = machine_name(record["machine"])
    figure.suptitle(f"{what}: {on}, {record['date'][:10]}", fontsize=10)


def arguments() -> argparse.ArgumentParser:
    """The parser of ``plots``."""
    parser = parser_of("plots", __doc__, out=False)
    parser.add_argument("records", type=Path, nargs="+", help="JSON files of results")
    parser.add_argument("--suffix", choices=(".png", ".svg"), default=".png")
    return parser


def main(argv: Sequence[str]) -> int:
    """Draws them, each beside its record.

    Returns:
        0.
    """
    parser = arguments()
    args = parser.parse_args(argv)
    for path in args.records:
        try:
            record = read_of(PLOTS, path)
        except ValueError as error:
            parser.error(str(error))
        print(PLOTS[record["kind"]](record, path.with_suffix(args.suffix)))
    return 0
