"""Table and plot of ``python -m benchmarks gestures``, from its record."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

from benchmarks.common.processor import processor_name

Record = dict[str, Any]
Accuracies = dict[tuple[int, int], float]
"""By fold and seed."""

SCRATCH, PRETRAINED = "from scratch", "pre-trained"


def by_arm(record: Record) -> dict[str, Accuracies]:
    """Accuracies of each arm, in the order of the cells."""
    found: dict[str, Accuracies] = {}
    for cell in record["cells"]:
        found.setdefault(cell["arm"], {})[cell["fold"], cell["seed"]] = cell["accuracy"]
    return found


def over_folds(accuracies: Accuracies) -> tuple[float, float | None]:
    """Mean over folds (of a fold, over seeds), and the standard deviation between folds."""
    folds: dict[int, list[float]] = {}
    for (fold, _), accuracy in accuracies.items():
        folds.setdefault(fold, []).append(accuracy)
    means = [statistics.mean(values) for values in folds.values()]
    return statistics.mean(means), statistics.stdev(means) if len(means) > 1 else None


def gains(arm: Accuracies, other: Accuracies) -> Accuracies:
    """What one has over the other, where both were run."""
    return {where: arm[where] - other[where] for where in arm if where in other}


def gestures_table(record: Record) -> str:
    """Markdown: each arm by fold, mean and spread; and what pre-training gains."""
    arms = by_arm(record)
    folds = sorted({fold for one in arms.values() for fold, _ in one})
    seeds = sorted({seed for one in arms.values() for _, seed in one})
    lines = [
        _head(record, len(seeds)),
        "",
        "| | " + " | ".join(f"fold {fold}" for fold in folds) + " | mean | deviation of folds |",
        "|-|" + "-:|" * (len(folds) + 2),
    ]
    for arm, accuracies in arms.items():
        lines.append(f"| {arm} | {_row(accuracies, folds)} |")
    if SCRATCH in arms:
        for arm, accuracies in arms.items():
            gained = gains(accuracies, arms[SCRATCH])
            if arm != SCRATCH and gained:
                lines.append(f"| *{arm}, over {SCRATCH}* | {_row(gained, folds, sign='+')} |")
    lines += ["", *_verdict(arms)]
    return "\n".join(lines)


def _row(accuracies: Accuracies, folds: list[int], sign: str = "") -> str:
    cells = []
    for fold in folds:
        values = [value for (of, _), value in accuracies.items() if of == fold]
        cells.append(f"{100 * statistics.mean(values):{sign}.1f}" if values else "")
    mean, deviation = over_folds(accuracies)
    told = "" if deviation is None else f"{100 * deviation:.1f}"
    return " | ".join([*cells, f"**{100 * mean:{sign}.1f}**", told])


def _verdict(arms: dict[str, Accuracies]) -> list[str]:
    """Whether what pre-training gains is more than folds differ by chance."""
    if SCRATCH not in arms or PRETRAINED not in arms:
        return []
    gained = gains(arms[PRETRAINED], arms[SCRATCH])
    mean, deviation = over_folds(gained)
    folds = len({fold for fold, _ in gained})
    if deviation is None:
        return [f"Pre-training: {100 * mean:+.1f} points; one fold says nothing about chance."]
    error = deviation / math.sqrt(folds)
    word = "more than" if mean > 2 * error else "no more than"
    return [
        f"Pre-training: {100 * mean:+.1f} points over {SCRATCH}, with a standard error of "
        f"{100 * error:.1f} over {folds} folds: {word} two standard errors above none."
    ]


def _head(record: Record, seeds: int) -> str:
    tiny = (
        "TINY, TO TEST THE SCRIPT: the figures say nothing; " if record["settings"]["tiny"] else ""
    )
    settings, cells = record["settings"], record["cells"]
    videos = {cell["fold"]: cell["videos"] for cell in cells}
    minutes = sum(cell["seconds"] + cell["pretraining_seconds"] for cell in cells) / 60
    model, epochs = settings["model"], [
        settings[name]["schedule.epochs"] for name in ("pretraining", "finetuning")
    ]  # fmt: skip
    return (
        f"{tiny}top-1 accuracy in %, {sum(videos.values())} clips of {record['classes']} classes "
        f"in {len(videos)} folds by recording group, seeds: {seeds}; chance is "
        f"{100 / record['classes']:.0f}. {model['model.image_size']} pixels, "
        f"{model['model.frames']} frames, width {model['model.width']}, depth "
        f"{model['model.depth']}; {epochs[0]} epochs of pre-training, {epochs[1]} of fine-tuning; "
        f"{minutes:.0f} minutes of runs on {processor_name(record['machine'])}, "
        f"{record['machine']['threads']} threads; {record['date'][:10]}, commit "
        f"{record['commit']}: `{record['command']}`"
    )


def plot_gestures(record: Record, path: Path) -> Path:
    """Bars of the means with the folds as dots, joined from arm to arm; PNG or SVG by suffix."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    arms = by_arm(record)
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, (arm, accuracies) in enumerate(arms.items()):
        mean, deviation = over_folds(accuracies)
        colour = "#1f77b4" if arm == PRETRAINED else "#9aa5b1"
        axes.bar(place, 100 * mean, 0.6, color=colour, yerr=100 * (deviation or 0.0), capsize=4)
        axes.annotate(
            f"{100 * mean:.1f}", (place, 0), xytext=(0, 4), textcoords="offset points", ha="center"
        )
    runs = sorted({where for one in arms.values() for where in one})
    for where in runs:
        points = [(i, 100 * one[where]) for i, one in enumerate(arms.values()) if where in one]
        axes.plot(*zip(*points, strict=True), ".-", color="black", alpha=0.35, linewidth=0.8)
    axes.axhline(100 / record["classes"], color="black", linestyle=":", linewidth=0.8)
    axes.set_xticks(range(len(arms)), list(arms))
    axes.set_ylabel("top-1, %")
    axes.set_title("Held-out recording groups: mean, deviation, each fold", fontsize=9)
    figure.savefig(path, dpi=120)
    return path
