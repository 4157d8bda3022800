"""Accuracies by epoch as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

_COLOURS = ("#1d4ed8", "#d97706", "#15803d", "#71717a")


def save_accuracies(
    path: Path, accuracies: Mapping[str, Sequence[float]], *, chance: float, title: str
) -> Path:
    """Draws a line per classifier, and where guessing is.

    Args:
        path: of the picture, PNG or SVG by its suffix.
        accuracies: shares 0 to 1 at the end of each epoch, by what the classifier is called.
        chance: share that guessing gets right.
        title: of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, (name, tops) in enumerate(accuracies.items()):
        colour, epochs = _COLOURS[number % len(_COLOURS)], range(1, len(tops) + 1)
        axes.plot(epochs, [100 * top for top in tops], "o-", color=colour, label=name)
        axes.annotate(
            f"{100 * tops[-1]:.1f}", (len(tops), 100 * tops[-1]), xytext=(6, 0),
            textcoords="offset points", va="center", color=colour, fontweight="bold",
        )  # fmt: skip
    axes.axhline(100 * chance, color="black", linestyle=":", linewidth=1, label="chance")
    axes.set_xlabel("epoch of fine-tuning")
    axes.set_ylabel("held-out videos in the right class, %")
    axes.set_ylim(0, 100)
    axes.set_xticks(range(1, 1 + max(len(tops) for tops in accuracies.values())))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    axes.set_title(title, loc="left", fontweight="bold")
    figure.savefig(path)
    return path
