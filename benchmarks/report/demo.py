"""Table and plot of ``python -m benchmarks demo-seeds``, from its record."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.processor import processor_name

Record = dict[str, Any]


def demo_table(record: Record) -> str:
    """Markdown: a column per seed, mean and deviation."""
    runs, scale = record["runs"], record["settings"]["scale"]
    work = record["settings"]["multiply_adds"]
    seeds = [f"seed {run['seed']}" for run in runs]
    lines = [
        f"The demo: {scale['unlabelled']} unlabelled videos and {runs[0]['labelled_videos']} "
        f"labelled ones, {scale['steps']} steps of pre-training "
        f"({work['pretraining'] / 1e12:.1f} · 10^12 multiply-adds), "
        f"{scale['finetuning_steps']} of fine-tuning ({work['finetuning'] / 1e12:.1f} · 10^12). "
        f"{processor_name(record['machine'])}, {record['machine']['threads']} threads; "
        f"{record['date'][:10]}, commit {record['commit']}: `{record['command']}`",
        "",
        f"| | {' | '.join(seeds)} | mean | deviation |",
        "|-|" + "-:|" * (len(seeds) + 2),
    ]
    for what, videos in (("held_out", "held out"), ("trained_on", "trained on")):
        for key, told in (
            ("after", ""), ("nothing", ", predicting nothing"), ("before", ", untrained"),
        ):  # fmt: skip
            values = [run["reconstruction"][what][key] for run in runs]
            count = runs[0]["reconstruction"][what]["videos"]
            lines.append(_row(f"loss on what is hidden, {count} videos {videos}{told}", values, 3))
    for arm in runs[0]["classes"]:
        values = [100 * run["classes"][arm]["accuracy"] for run in runs]
        count = runs[0]["classes"][arm]["videos"]
        lines.append(_row(f"{count} held-out videos in the right class, %: {arm}", values, 1))
    lines.append(_row("the same by chance, %", [100 * run["chance"] for run in runs], 1))
    lines.append(_row("seconds of the demo", [run["seconds"] for run in runs], 0))
    lines.append(_row("seconds of processors", [run["cpu_seconds"] for run in runs], 0))
    return "\n".join(lines)


def _row(name: str, values: Sequence[float], digits: int) -> str:
    deviation = f"{statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    texts = [f"{value:.{digits}f}" for value in values]
    return (
        f"| {name} | {' | '.join(texts)} | **{statistics.mean(values):.{digits}f}** | {deviation} |"
    )


def plot_demo(record: Record, path: Path) -> Path:
    """Reconstruction and accuracy with their seeds as dots; PNG or SVG by suffix."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    runs = record["runs"]
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    losses = {
        name: [run["reconstruction"]["held_out"][key] for run in runs]
        for key, name in (
            ("before", "untrained"), ("nothing", "predicting\nnothing"), ("after", "trained"),
        )
    }  # fmt: skip
    tops = {
        arm.replace(", ", ",\n"): [100 * run["classes"][arm]["accuracy"] for run in runs]
        for arm in runs[0]["classes"]
    }
    panels = (("loss on what is hidden, held out", losses), ("held-out top-1, %", tops))
    for number, (told, bars) in enumerate(panels, 1):
        axes = figure.add_subplot(1, 2, number)
        for place, values in enumerate(bars.values()):
            best = list(bars)[place] in ("trained", "pre-trained")
            colour = "#1f77b4" if best else "#9aa5b1"
            axes.bar(place, statistics.mean(values), 0.6, color=colour)
            axes.plot([place] * len(values), values, ".", color="black", alpha=0.5)
        axes.set_xticks(range(len(bars)), list(bars), fontsize=8)
        axes.set_ylabel(told)
    axes.axhline(100 * runs[0]["chance"], color="black", linestyle=":", linewidth=0.8)
    figure.suptitle(f"The demo over {len(runs)} seeds: means, and each seed", fontsize=10)
    figure.savefig(path, dpi=120)
    return path
