"""The page of a run: what it shows, that it is one file, and what damage costs."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from videomae_fast import cli
from videomae_fast.data.failures import Failure
from videomae_fast.recipes import PretrainConfig
from videomae_fast.recipes.plain import to_plain
from videomae_fast.report import read_run
from videomae_fast.report.charts import MOST_POINTS, Line, chart, thinned
from videomae_fast.report.page import MOST_FILES, page
from videomae_fast.tasks.validation import Epoch, History, Numbers

STEPS = 40


class Page(HTMLParser):
    """Texts of a page, what it loads, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.loads: list[str] = []
        self.anchors: list[str] = []
        self.names: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        found = dict(attrs)
        self.loads += [str(found[key]) for key in ("src", "data") if key in found]
        if tag in ("link", "script"):
            self.loads.append(tag)
        if tag == "a":
            self.anchors.append(str(found["href"]).removeprefix("#"))
        if "id" in found:
            self.names.append(str(found["id"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with all that runs leave."""
    run = tmp_path / "a <run> & more"
    run.mkdir()
    lines = [
        {"step": i, "epoch": i // 10, "loss": None if i == 3 else 1 / (i + 1), "lr": 1e-3,
         "grad_norm": 0.5, "clips": 8, "failed_clips": 0, "clips_per_s": 100.0 + i,
         "data_wait": 0.25, "accuracy": i / STEPS}
        for i in range(STEPS)
    ]  # fmt: skip
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "config.json").write_text(json.dumps(to_plain(PretrainConfig())))
    history = History(run)
    history.add(Epoch(20, Numbers(0.5, 0.9, 1.25, 60, 1), None, "weights"))
    average = Numbers(0.75, 0.9, 0.9, 60, 1)
    history.add(Epoch(40, Numbers(0.625, 0.9, 1.0, 60, 1), average, "average"))
    bad = [
        Failure(f"clip <{i % (MOST_FILES + 5)}>.mp4", "train.csv", i + 1, "moov atom", i, 0, i)
        for i in range(MOST_FILES + 8)
    ]
    (run / "bad_files.rank0.jsonl").write_text("".join(one.to_json() + "\n" for one in bad))
    test = run / "test"
    test.mkdir()
    (test / "result.json").write_text(json.dumps({"videos": 60, "top1": 0.8125, "segments": 5}))
    (test / "classes.csv").write_text("class,videos\nwave,30\n")
    Image.new("RGB", (8, 8), (200, 0, 0)).save(test / "confusion.png")
    state = run / "checkpoints" / "step-00000040"
    state.mkdir(parents=True)
    (state / "state.json").write_text(json.dumps({"versions": {"torch": "2.99"}}))
    Image.new("RGB", (8, 8)).save(state / "no.png")
    return run


def test_it_shows_what_a_run_left(folder: Path) -> None:
    found = Page(page(read_run(folder)))
    text = "\n".join(found.texts)
    for told in (
        "a <run> & more", "40", "119.5", "25%", "75.0%", "81.2%", "wave",
        "best top-1 in validation",
        "208 draws of 205 files gave no clip.", "clip <0>.mp4", "train.csv:1", "moov atom",
        "and 5 more, in bad_files.rank*.jsonl", "test/confusion.png", "base_lr", "2.99",
    ):  # fmt: skip
        assert told in text, told
    assert "no.png" not in text
    assert not found.open
    assert set(found.anchors) == set(found.names) >= {"loss", "speed", "validation", "versions"}
    pictures = [load for load in found.loads if load.startswith("data:image/png")]
    charts = [load for load in found.loads if load.startswith("data:image/svg+xml")]
    assert len(pictures) == 1
    assert len(charts) == 5  # loss, gradient norm, the task's own, speed, accuracy
    assert len(found.loads) == 6  # nothing is asked of another file or the network


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "epoch": 0, "loss": null, "lr": 0.0}\n')
    text = page(read_run(tmp_path))
    assert not Page(text).open
    assert "<section" in text
    assert "Validation" not in text


def test_damage_costs_itself_only(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    (folder / "validation.jsonl").write_text("nonsense\n")
    (folder / "test" / "result.json").write_text("[]")
    record = read_run(folder)
    assert len(record.unreadable) == 3
    assert len(record.steps) == STEPS
    assert record.tests == []
    text = page(record)
    for name in (
        "config.json is no JSON",
        "validation.jsonl:1",
        "result.json holds no JSON object",
    ):
        assert name in text


def test_lines_are_thinned_to_means() -> None:
    steps = list(range(10 * MOST_POINTS))
    at, values = thinned(Line("x", steps, [float(step) for step in steps]))
    assert len(at) == MOST_POINTS
    assert at == values
    assert values[0] == 4.5
    assert thinned(Line("x", [1, 2, 3], [None, float("nan"), 2.0])) == ([3], [2.0])
    assert chart([Line("x", [1], [None])], left="") == ""
    svg = chart([Line("loss", [1], [2.0]), Line("lr", [1], [3.0], right=True)], left="a", right="b")
    assert re.search(r"<svg", svg)


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    assert "moov atom" in (folder / "report.html").read_text()
    assert cli.main(["report", str(folder), "--output", str(tmp_path / "new" / "one.html")]) == 0
    assert (tmp_path / "new" / "one.html").is_file()
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "holds no metrics.jsonl" in capsys.readouterr().err
    assert cli.main(["report", str(folder), "--output", str(tmp_path)]) == 2
