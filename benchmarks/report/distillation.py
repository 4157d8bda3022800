"""Table and plot of the distillation experiment, of its record alone."""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks.common.processor import machine_name
from benchmarks.report.tables import Record

TOLD = {
    "labels": "labels alone",
    "logits": "teacher's logits, no labels",
    "features": "teacher's features, and labels by half",
}
COLOURS = {"labels": "#9aa5b1", "logits": "#1f77b4", "features": "#7fb3d9"}


def scores(record: Record, way: str) -> dict[int, float]:
    """Top-1 of a way by seed."""
    return {run["seed"]: float(run["top1"]) for run in record["runs"] if run["way"] == way}


def gains(record: Record, way: str) -> list[float]:
    """By seed what a way has above labels alone."""
    base = scores(record, "labels")
    return [top1 - base[seed] for seed, top1 in scores(record, way).items() if seed in base]


def spread(values: list[float]) -> float:
    """Standard deviation of a sample; 0 of one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def verdict(record: Record, way: str) -> str:
    """What came out for a way, in a sentence."""
    found = gains(record, way)
    mean, deviation = statistics.fmean(found), spread(found)
    error = deviation / len(found) ** 0.5
    better = sum(one > 0 for one in found)
    if len(found) < 3:
        told = "too few seeds to say more"
    elif abs(mean) <= 2 * error:
        told = "within two standard errors of 0: no difference is shown"
    else:
        told = f"{'above' if mean > 0 else 'BELOW'} 0 by more than two standard errors"
    return (
        f"{TOLD[way]}: {100 * mean:+.1f} points over labels alone, standard deviation "
        f"{100 * deviation:.1f}, standard error {100 * error:.1f}; better for {better} of "
        f"{len(found)} seeds; {told}."
    )


def distillation_table(record: Record) -> str:
    """Each way with mean and spread, and what it has above labels alone, seed by seed."""
    settings, teacher = record["settings"], record["teacher"]
    tiny = "TINY, TO TEST THE SCRIPT: the figures say nothing; " if settings["tiny"] else ""
    ways = [way for way in TOLD if scores(record, way)]
    seeds = sorted({run["seed"] for run in record["runs"]})
    classes, steps = settings["classes"], record["runs"][0]["steps"]
    columns = " | ".join(f"seed {seed}" for seed in seeds)
    lines = [
        f"{tiny}{machine_name(record['machine'])}, torch {record['versions']['torch']}; "
        f"{record['date'][:10]}, commit {record['commit']}: `{record['command']}`",
        "",
        f"{classes} directions of motion (chance {1 / classes:.1%}). Teacher: "
        f"{settings['teacher']} labelled videos of each, top-1 {teacher['top1']:.1%}. Students: "
        f"{settings['student']} of these, {steps} steps, the same weights to begin with and the "
        f"same mixed clips for a seed. Top-1 of the last epoch on {settings['validation']} unseen "
        "videos of each class.",
        "",
        f"| student by | mean top-1 | standard deviation | {columns} "
        "| teacher, ms of a step (share) |",
        f"|-|-:|-:|{'-:|' * len(seeds)}-:|",
    ]
    for way in ways:
        found = scores(record, way)
        runs = [run for run in record["runs"] if run["way"] == way]
        cost = ""
        if "teacher_ms" in runs[0]:
            ms, share = (
                statistics.fmean(run[name] for run in runs)
                for name in ("teacher_ms", "teacher_share")
            )
            cost = f"{ms:.1f} ({share:.0%})"
        each = " | ".join(f"{found[seed]:.1%}" for seed in seeds)
        lines.append(
            f"| {TOLD[way]} | {statistics.fmean(found.values()):.1%} "
            f"| {100 * spread(list(found.values())):.1f} points | {each} | {cost} |"
        )
    if "labels" in ways:
        lines += ["", *(f"* {verdict(record, way)}" for way in ways if way != "labels")]
    return "\n".join(lines)


def plot_distillation(record: Record, path: Path) -> Path:
    """Validation by epoch: the mean of each way, its range over seeds, and the teacher."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.add_subplot()
    for way in TOLD:
        curves = [run["by_epoch"] for run in record["runs"] if run["way"] == way]
        if not curves:
            continue
        columns = list(zip(*curves, strict=True))
        epochs = range(1, len(columns) + 1)
        colour = COLOURS[way]
        means = [statistics.fmean(each) for each in columns]
        axes.plot(epochs, means, color=colour, label=f"{TOLD[way]} ({len(curves)} seeds)")
        lows, highs = [min(each) for each in columns], [max(each) for each in columns]
        axes.fill_between(epochs, lows, highs, color=colour, alpha=0.2, linewidth=0)
    axes.axhline(record["teacher"]["top1"], color="black", linestyle="--", label="teacher")
    chance = 1 / record["settings"]["classes"]
    axes.axhline(chance, color="black", linestyle=":", linewidth=0.8, label="chance")
    axes.set(xlabel="epoch", ylabel="top-1 on unseen videos", ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=150)
    return path
