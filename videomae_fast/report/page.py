"""The report of a run as a page: text, tables and pictures, all within one file."""

from __future__ import annotations

import base64
import html
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

from videomae_fast import __version__
from videomae_fast.data.files import write_lines
from videomae_fast.report.charts import Line, chart, line_of
from videomae_fast.report.run import RunRecord, TestRecord

MOST_FILES: Final = 200
"""Unreadable files that are listed; the rest are counted."""

MOST_PICTURES: Final = 24
MOST_BYTES: Final = 8_000_000
"""Of a picture that is put into the page; a larger one is named."""

_TYPES: Final = {".png": "png", ".gif": "gif", ".jpg": "jpeg", ".svg": "svg+xml"}


def write_report(run: RunRecord, path: Path) -> Path:
    """Writes the page, whole or not at all.

    Args:
        run: what is told.
        path: of the HTML file.

    Returns:
        `path`.
    """
    write_lines(path, [page(run)])
    return path


def page(run: RunRecord) -> str:
    """The page's HTML; it asks no other file and no network for anything."""
    sections = {
        "Loss": _losses(run),
        "Speed": _speed(run),
        "Validation": _validation(run),
        "Tests": "".join(map(_test, run.tests)),
        "Pictures": _pictures(run),
        "Files that could not be read": _failures(run),
        "Configuration": _configuration(run),
        "Versions": _table(("package", "version"), sorted(run.versions.items())),
    }
    shown = {name: body for name, body in sections.items() if body}
    links = "".join(f'<a href="#{_anchor(name)}">{name}</a>' for name in shown)
    parts = "".join(
        f'<section><h2 id="{_anchor(name)}">{name}</h2>{body}</section>'
        for name, body in shown.items()
    )
    name = html.escape(run.path.resolve().name)
    style = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    warned = "".join(f'<p class="warn">{html.escape(one)}</p>' for one in run.unreadable)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}</title><style>{style}</style></head><body>"
        f"<header><h1>{name}</h1>{warned}{_tiles(run)}<nav>{links}</nav></header>{parts}"
        f'<p class="soft">Written by videomae-fast {html.escape(__version__)}.</p></body></html>\n'
    )


def _tiles(run: RunRecord) -> str:
    """The numbers that are asked for first."""
    losses = [float(one["loss"]) for one in run.steps if one.get("loss") is not None]
    last = losses[-max(1, len(losses) // 20) :]
    tiles = [(f"{len(run.steps):,}", "steps")]
    if run.steps:
        tiles.append((f"{run.steps[-1].get('epoch', 0) + 1:,}", "epochs begun"))
    if losses:
        tiles.append(
            (f"{statistics.fmean(last):.4f}", f"mean loss of the last {len(last):,} steps")
        )
    speeds = _numbers(run, "clips_per_s")
    if speeds:
        tiles.append((f"{statistics.median(speeds):,.1f}", "clips/s, median"))
    waits = _numbers(run, "data_wait")
    if waits:
        tiles.append((f"{statistics.fmean(waits):.0%}", "of the time waiting for data"))
    best = max((one.top1 for one in run.validation), default=-1.0)
    if best >= 0:
        tiles.append((f"{best:.1%}", "best top-1 in validation"))
    means = [one.mean for one in run.detection if one.mean is not None]
    if means:
        tiles.append((f"{max(means):.1%}", "best mAP in validation"))
    files = len({one.path for one in run.failures})
    tiles.append((f"{files:,}", "files that could not be read"))
    cells = (f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for value, name in tiles)
    return f'<div class="tiles">{"".join(cells)}</div>'


def _losses(run: RunRecord) -> str:
    steps = run.steps
    loss = [line_of("loss", steps, "loss"), line_of("learning rate", steps, "lr", right=True)]
    own = [line_of(name, steps, name) for name in run.own_metrics]
    return (
        _drawn(chart(loss, left="loss", right="learning rate"), "loss and learning rate")
        + _drawn(
            chart([line_of("gradient norm", steps, "grad_norm")], left="norm"), "gradient norm"
        )
        + _drawn(chart(own, left=""), "the task's own numbers")
    )


def _speed(run: RunRecord) -> str:
    lines = [
        line_of("clips/s", run.steps, "clips_per_s"),
        line_of("data wait", run.steps, "data_wait", right=True),
    ]
    return _drawn(
        chart(lines, left="clips/s", right="share of the time"), "speed and waiting for data"
    )


def _validation(run: RunRecord) -> str:
    epochs = run.validation
    if run.detection:
        return _detection(run)
    if not epochs:
        return ""
    steps = [one.step for one in epochs]
    lines = [Line("top-1", steps, [one.weights.top1 for one in epochs], points=True)]
    lines.append(Line("top-5", steps, [one.weights.top5 for one in epochs], points=True))
    if any(one.average is not None for one in epochs):
        tops = [None if one.average is None else one.average.top1 for one in epochs]
        lines.append(Line("top-1, averaged weights", steps, tops, points=True))
    rows = [
        (f"{one.step:,}", _share(one.weights.top1), _share(one.weights.top5),
         "-" if one.average is None else _share(one.average.top1),
         "-" if one.weights.loss is None else f"{one.weights.loss:.4f}",
         f"{one.weights.videos:,}", f"{one.weights.failed:,}", one.best or "")
        for one in epochs
    ]  # fmt: skip
    head = ("step", "top-1", "top-5", "top-1, averaged", "loss", "videos", "failed", "best so far")
    picture = chart(lines, left="share of the videos")
    return _drawn(picture, "accuracy in validation") + _folded("every validation", head, rows)


def _detection(run: RunRecord) -> str:
    lines = run.detection
    rows = [
        (f"{one.step:,}", _share(one.mean), "-" if one.loss is None else f"{one.loss:.4f}",
         f"{one.key_frames:,}", f"{one.boxes:,}", f"{one.failed:,}", one.best or "")
        for one in lines
    ]  # fmt: skip
    head = ("step", "mAP", "loss", "key frames", "boxes", "failed", "best so far")
    mean = Line("mAP", [one.step for one in lines], [one.mean for one in lines], points=True)
    picture = chart([mean], left="mean average precision")
    return _drawn(picture, "mAP in validation") + _folded("every validation", head, rows)


def _test(test: TestRecord) -> str:
    shares = {"top1", "top5", "mean_class", "map"}
    rows = [
        (name, _share(value) if name in shares and isinstance(value, float) else str(value))
        for name, value in test.numbers.items()
    ]
    told = f'<p class="soft">{html.escape(test.folder)}</p>' + _table(("", ""), rows)
    if len(test.classes) > 1:
        told += _folded("by class", test.classes[0], test.classes[1:])
    return told


def _pictures(run: RunRecord) -> str:
    """Pictures within the page; what is too large or one too many is named."""
    shown: list[str] = []
    named: list[str] = []
    for path in run.pictures:
        where = html.escape(str(path.relative_to(run.path)))
        if len(shown) == MOST_PICTURES or path.stat().st_size > MOST_BYTES:
            named.append(where)
            continue
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        shown.append(
            f'<figure><img alt="{where}" src="data:image/{_TYPES[path.suffix]};base64,{data}">'
            f"<figcaption>{where}</figcaption></figure>"
        )
    left = f'<p class="soft">not shown: {", ".join(named)}</p>' if named else ""
    return "".join(shown) + left


def _failures(run: RunRecord) -> str:
    if not run.failures:
        return ""
    by_file = Counter(one.path for one in run.failures)
    first = {one.path: one for one in reversed(run.failures)}
    rows = [
        (path, f"{count:,}", first[path].place, first[path].reason)
        for path, count in by_file.most_common(MOST_FILES)
    ]
    left = len(by_file) - len(rows)
    more = f'<p class="soft">and {left:,} more, in bad_files.rank*.jsonl</p>' if left else ""
    told = f"<p>{len(run.failures):,} draws of {len(by_file):,} files gave no clip.</p>"
    return told + _table(("file", "draws", "list", "why"), rows) + more


def _configuration(run: RunRecord) -> str:
    told = []
    for name, section in run.config.items():
        if isinstance(section, Mapping):
            rows = [(key, _plain(value)) for key, value in section.items()]
            told.append(_folded(name, ("field", "value"), rows))
    return "".join(told)


def _numbers(run: RunRecord, key: str) -> list[float]:
    return [float(one[key]) for one in run.steps if one.get(key) is not None]


def _drawn(svg: str, title: str) -> str:
    """A chart as a picture of its own, so that names within it meet no others."""
    if not svg:
        return ""
    data = base64.b64encode(svg.encode()).decode("ascii")
    return f'<figure><img alt="{title}" src="data:image/svg+xml;base64,{data}"></figure>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = "".join(
        f"<tr>{''.join(f'<td class=path>{html.escape(cell)}</td>' for cell in row)}</tr>"
        for row in rows
    )
    if not body:
        return ""
    names = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    top = f"<thead><tr>{names}</tr></thead>" if any(head) else ""
    return f'<div class="wide"><table>{top}<tbody>{body}</tbody></table></div>'


def _folded(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    table = _table(head, rows)
    return f"<details><summary>{html.escape(title)}</summary>{table}</details>"


def _plain(value: Any) -> str:
    return "none" if value is None else str(value)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")
