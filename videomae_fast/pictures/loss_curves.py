"""The loss curve of a run as a picture, with the numbers it shows beside it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videomae_fast.errors import VideoMAEFastError


@dataclass(frozen=True)
class LossCurve:
    """Steps with their loss and learning rate, in order, each step once."""

    steps: list[int]
    loss: list[float]
    lr: list[float]

    @staticmethod
    def of(records: Iterable[Mapping[str, Any]]) -> LossCurve:
        """The curve of a run's metrics.

        Args:
            records: one of each step, as :func:`videomae_fast.training.metrics.read_metrics` gives
                them, with at least "step", "loss" and "lr". Of a step that comes twice the later
                record counts; a step without a loss (no clip of it could be read) is left out.

        Raises:
            VideoMAEFastError: something that is no such record, or no step with a loss.
        """
        found: dict[int, tuple[float, float]] = {}
        for record in records:
            try:
                if record["loss"] is not None:
                    found[int(record["step"])] = (float(record["loss"]), float(record["lr"]))
            except (KeyError, TypeError, ValueError) as error:
                raise VideoMAEFastError(
                    f"{record!r} is no record with step, loss and lr ({error!r})"
                ) from None
        if not found:
            raise VideoMAEFastError("no step with a loss has been recorded yet")
        steps = sorted(found)
        return LossCurve(steps, [found[s][0] for s in steps], [found[s][1] for s in steps])

    def smoothed(self, window: int | None = None) -> list[float]:
        """The mean of the last `window` losses at each step (1/20 of the run by default)."""
        size = window or max(1, len(self.loss) // 20)
        sums = [0.0]
        for value in self.loss:
            sums.append(sums[-1] + value)
        means = []
        for i in range(1, len(sums)):
            start = max(0, i - size)
            means.append((sums[i] - sums[start]) / (i - start))
        return means


def save_loss_plot(curve: LossCurve, path: Path, *, title: str) -> Path:
    """Draws loss (each step and smoothed) and learning rate over steps.

    Returns:
        The CSV file beside the picture that holds every number in it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    smooth = curve.smoothed()
    table = path.with_suffix(".csv")
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "loss", "loss_smoothed", "lr"])
        writer.writerows(zip(curve.steps, curve.loss, smooth, curve.lr, strict=True))

    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(curve.steps, curve.loss, color="#93c5fd", linewidth=0.8, label="loss of each step")
    window = max(1, len(curve.loss) // 20)
    axes.plot(curve.steps, smooth, color="#1d4ed8", linewidth=2, label=f"mean of the last {window}")
    axes.set_xlabel("step")
    axes.set_ylabel("loss (mean squared error of normalised pixels)")
    axes.grid(alpha=0.25)
    axes.margins(x=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.annotate(
        f"{smooth[-1]:.3f}",
        (curve.steps[-1], smooth[-1]),
        textcoords="offset points",
        xytext=(-4, 8),
        ha="right",
        color="#1d4ed8",
        fontweight="bold",
    )
    rate = axes.twinx()
    rate.plot(curve.steps, curve.lr, color="#d97706", linewidth=1, linestyle="--", label="lr")
    rate.set_ylabel("learning rate", color="#b45309")
    rate.tick_params(axis="y", colors="#b45309")
    rate.set_ylim(bottom=0)
    rate.spines["top"].set_visible(False)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    handles = [*axes.get_lines(), *rate.get_lines()]
    axes.legend(handles, [str(h.get_label()) for h in handles], frameon=False, loc="upper right")
    axes.set_title(title, loc="left", fontweight="bold")
    figure.savefig(path)
    return table
