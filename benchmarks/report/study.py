"""Tables and plots of ``python -m benchmarks study`` and its pilot, from their records."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.processor import processor_name
from benchmarks.report.gestures import Accuracies, gains, over_folds

Record = dict[str, Any]
Where = tuple[str, str, str]
"""Set, table and row."""

DIFFERENT = (
    "What differs from the papers, before any figure: a model of {width} × {depth} instead of "
    "768 × 12 and more, clips of {frames} frames and {pixels} pixels, {clips} clips instead of "
    "hundreds of thousands, minutes of pre-training instead of days, and masks and decoders "
    "compared with the same multiply-adds instead of the same epochs. An order that does not hold "
    "here says nothing against it there."
)


def by_row(cells: Iterable[Record]) -> dict[Where, list[Record]]:
    """Cells of each row, in their order."""
    found: dict[Where, list[Record]] = {}
    for cell in cells:
        found.setdefault((cell["set"], cell["table"], cell["row"]), []).append(cell)
    return found


@dataclass(frozen=True)
class Row:
    """A row as it is shown.

    Attributes:
        name: the base's is another one in each table.
        cells: that are done.
        base: cells that it is compared with.
        planned: how many cells there will be.
        repeated: the base, in a table that is about something else.
    """

    name: str
    cells: list[Record]
    base: list[Record] | None
    planned: int
    repeated: bool = False

    @property
    def scratch(self) -> bool:
        """Nothing was pre-trained."""
        return bool(self.cells[0]["arm"] == "from scratch")


def tables_of(record: Record) -> dict[tuple[str, str], list[Row]]:
    """Rows with a cell by set and table; where the base is one of what differs, it comes first."""
    done, planned = by_row(record["cells"]), by_row(record["planned"])
    found: dict[tuple[str, str], list[Row]] = {}
    for where in planned:
        if where not in done:
            continue
        named, table, name = where
        if (named, table) not in found:
            found[named, table] = []
            own = next((one for one in done if one[0] == named and one[2] == "pre-trained"), None)
            if table in record["base_in"] and own is not None:
                called = f"{record['base_in'][table]} (base)"
                found[named, table].append(Row(called, done[own], None, len(planned[own]), True))
        row = Row(name, done[where], base_of(where, done), len(planned[where]))
        found[named, table].append(row)
    return found


def accuracies(cells: Iterable[Record]) -> Accuracies:
    """By fold and seed."""
    return {(cell["fold"], cell["seed"]): cell["accuracy"] for cell in cells}


def spread(found: Accuracies) -> tuple[float, float | None]:
    """The mean, and the standard deviation between folds or, of one fold, between seeds."""
    if len({fold for fold, _ in found}) > 1:
        return over_folds(found)
    values = list(found.values())
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def difference(row: Accuracies, base: Accuracies) -> tuple[float, float | None] | None:
    """What a row has over another one, paired, and the standard error; None without a pair."""
    pairs = gains(row, base)
    if not pairs:
        return None
    mean, deviation = spread(pairs)
    units = len({fold for fold, _ in pairs})
    count = units if units > 1 else len(pairs)
    return mean, None if deviation is None else deviation / math.sqrt(count)


def base_of(where: Where, done: dict[Where, list[Record]]) -> list[Record] | None:
    """The cells that a row is compared with: the base's, or from scratch with as few labels."""
    named, table, row = where
    if row.endswith(", pre-trained"):
        other: Where = (named, table, row.replace(", pre-trained", ", from scratch"))
    elif row.endswith(", from scratch"):
        return None
    else:
        other = next((one for one in done if one[0] == named and one[2] == "pre-trained"), where)
    return None if other == where else done.get(other)


def study_table(record: Record) -> str:
    """Markdown: what differs from the papers, a table per set and question, what is missing."""
    done, planned = by_row(record["cells"]), by_row(record["planned"])
    lines = [_head(record)]
    if not done:
        return "\n".join([*lines, "", f"No cell is done yet, of {len(record['planned'])}."])
    for (named, table), rows in tables_of(record).items():
        lines += [
            "",
            f"**{table}** ({record['sets'][named]['name']})",
            "",
            "| | top-1 | deviation | against | standard error | runs | Tmadd | minutes |",
            "|-|-:|-:|-:|-:|-:|-:|-:|",
            *map(_line, rows),
        ]
    return "\n".join([*lines, "", *_missing(done, planned)])


def _line(row: Row) -> str:
    cells = row.cells
    found = accuracies(cells)
    mean, deviation = spread(found)
    against = None if row.base is None else difference(found, accuracies(row.base))
    cost = statistics.mean(one["budget"]["pretraining"] + one["budget"]["finetuning"]
                           for one in cells) / 1e12  # fmt: skip
    minutes = statistics.mean(one["seconds"] + one["pretraining_seconds"] for one in cells) / 60
    gained, error = against or (None, None)
    texts = [
        row.name,
        f"**{100 * mean:.1f}**",
        "" if deviation is None else f"{100 * deviation:.1f}",
        "" if gained is None else f"{100 * gained:+.1f}",
        "" if error is None else f"{100 * error:.1f}",
        f"{len(cells)} of {row.planned}",
        f"{cost:.1f}",
        f"{minutes:.1f}",
    ]
    return f"| {' | '.join(texts)} |"


def _missing(done: dict[Where, list[Record]], planned: dict[Where, list[Record]]) -> list[str]:
    count = sum(map(len, planned.values()))
    left = count - sum(map(len, done.values()))
    if not left:
        return [f"All {count} cells are done."]
    without = [f"{where[1]}: {where[2]}" for where in planned if where not in done]
    told = f"; rows without any: {', '.join(without)}" if without else ""
    return [f"{left} of {count} cells are missing{told}. The same command does the next ones."]


def _head(record: Record) -> str:
    settings, sets = record["settings"], record["sets"]
    base, model = settings["base"], settings["base"]["model"]
    tiny = "TINY, TO TEST THE SCRIPT: the figures say nothing. " if settings["tiny"] else ""
    machine = record["machine"]
    told = "; ".join(
        f"{one['name']}: {one['clips']} clips, {one['labelled']} with one of {one['classes']} "
        f"labels (chance {100 / one['classes']:.1f}), "
        + ("folds of " if len(one["folds"]) > 1 else "scored on ")
        + ", ".join(str(count) for count in one["folds"].values())
        for one in sets.values()
    )
    different = DIFFERENT.format(
        width=model["model.width"], depth=model["model.depth"], frames=model["model.frames"],
        pixels=model["model.image_size"],
        clips=" and ".join(str(one["clips"]) for one in sets.values()),
    )  # fmt: skip
    return (
        f"{tiny}{different}\n\nTop-1 in %. {told}. Base: cubes of {model['model.patch_size']} "
        f"pixels, {base['pretraining']['schedule.steps']} steps of pre-training with tube masks "
        f"{base['pretraining']['masks.encoder_ratio']:g} and running cells 0.5, "
        f"{base['finetuning']['schedule.steps']} of fine-tuning; of motions, whole frames "
        'instead of tubes. "against" is the mean of paired differences to the base, or to from '
        "scratch with as many labels; deviation and standard "
        "error are between folds, of one fold between seeds. Tmadd: 10^12 multiply-adds of a "
        "row's runs, forward and backward. Minutes are of whatever else the machine did, too. "
        f"{processor_name(machine)}, {machine['threads']} threads; {record['date'][:10]}, commit "
        f"{record['commit']}: `{record['command']}`"
    )


def pilot_table(record: Record) -> str:
    """Markdown: each candidate from scratch and pre-trained, and which one was taken."""
    tiny = "TINY, TO TEST THE SCRIPT. " if record["settings"]["tiny"] else ""
    lines = [
        f"{tiny}Sizes and lengths on one fold of {record['set']['name']} with one seed, to choose "
        f"by; top-1 in %, chance {100 / record['set']['classes']:.0f}. "
        f"{processor_name(record['machine'])}; {record['date'][:10]}, commit {record['commit']}: "
        f"`{record['command']}`",
        "",
        "| | from scratch, all compute | pre-trained | gain | Tmadd of each | minutes of both |",
        "|-|-:|-:|-:|-:|-:|",
    ]
    for one in record["candidates"]:
        found = {cell["arm"]: cell for cell in one["cells"]}
        tops = [
            f"{100 * found[arm]['accuracy']:.1f}" if arm in found else ""
            for arm in ("from scratch", "pre-trained")
        ]
        gain = ""
        if len(found) == 2:
            gained = found["pre-trained"]["accuracy"] - found["from scratch"]["accuracy"]
            gain = f"{100 * gained:+.1f}"
        cost = [c["budget"]["pretraining"] + c["budget"]["finetuning"] for c in found.values()]
        minutes = sum(c["seconds"] + c["pretraining_seconds"] for c in found.values()) / 60
        told = [f"{max(cost) / 1e12:.1f}", f"{minutes:.1f}"] if cost else ["", ""]
        mark = "**" if one["name"] == record["settings"]["chosen"] else ""
        lines.append(f"| {mark}{one['name']}{mark} | {' | '.join([*tops, gain, *told])} |")
    return "\n".join([*lines, "", f"Taken: {record['settings']['chosen']}."])


def plot_study(record: Record, path: Path) -> Path:
    """A panel per table, a bar per row with its standard error and runs as dots; by suffix.

    The dashed line is the base's mean, the dotted one chance.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tables = tables_of(record)
    heights = [len(rows) + 1.6 for rows in tables.values()] or [1.0]
    figure = Figure(figsize=(7.2, 0.8 + 0.24 * sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    for axes, ((named, table), rows) in zip(panels[:, 0], tables.items(), strict=False):
        for place, row in enumerate(rows):
            found = accuracies(row.cells)
            mean, deviation = spread(found)
            units = len({fold for fold, _ in found})
            error = (deviation or 0.0) / math.sqrt(units if units > 1 else len(found))
            colour = "#9aa5b1" if row.scratch else "#8cbbdd" if row.repeated else "#1f77b4"
            axes.barh(place, 100 * mean, 0.7, color=colour)
            if len(found) > 1:
                axes.errorbar(100 * mean, place, xerr=100 * error, color="black", capsize=2)
            values = [100 * value for value in found.values()]
            axes.plot(values, [place] * len(values), ".", color="black", alpha=0.3, markersize=3)
            if row.repeated or row.name == "pre-trained":
                axes.axvline(100 * mean, color="#1f77b4", linestyle="--", linewidth=0.8)
        axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=7)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        chance = 100 / record["sets"][named]["classes"]
        axes.axvline(chance, color="black", linestyle=":", linewidth=0.8)
        axes.set_title(f"{table} ({record['sets'][named]['name']})", fontsize=8, loc="left")
    panels[-1, 0].set_xlabel("top-1, %: mean, standard error, runs")
    figure.savefig(path, dpi=120)
    return path


def plot_pilot(record: Record, path: Path) -> Path:
    """Pairs of bars by candidate; PNG or SVG by suffix."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    candidates = record["candidates"]
    figure = Figure(figsize=(6.4, 0.8 + 0.6 * len(candidates)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, one in enumerate(candidates):
        for cell in one["cells"]:
            scratch = cell["arm"] == "from scratch"
            axes.barh(
                place + (0.2 if scratch else -0.2), 100 * cell["accuracy"], 0.38,
                color="#9aa5b1" if scratch else "#1f77b4",
                label=cell["arm"] if place == 0 else None,
            )  # fmt: skip
    axes.set_yticks(range(len(candidates)), [one["name"] for one in candidates], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(100 / record["set"]["classes"], color="black", linestyle=":", linewidth=0.8)
    axes.set_xlabel("top-1, %")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)
    return path
