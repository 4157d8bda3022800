"""Plots from recorded results.

python -m benchmarks.plots benchmarks/results/step-….json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import read
from benchmarks.tables import Record, median, require_checked, run_of

COLOURS = {"official": "#9aa5b1", "ours": "#1f77b4"}


def plot_step(record: Record, path: Path) -> Path:
    """Bars of the median step with quartiles, every single time as a dot; PNG or SVG by suffix.

    Raises:
        UncheckedError: the record does not show equality.
    """
    require_checked(record)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    maskings = list(dict.fromkeys(run["masking"] for run in record["runs"]))
    names = list(dict.fromkeys(run["contender"] for run in record["runs"]))
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
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
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plots", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("records", type=Path, nargs="+", help="JSON files of benchmarks.step")
    parser.add_argument("--suffix", choices=(".png", ".svg"), default=".png")
    args = parser.parse_args(argv)
    for path in args.records:
        print(plot_step(read(path), path.with_suffix(args.suffix)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
