"""The study: its rows, the same compute for all, what is held out, slices, and the table."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gestures.folds import Clip
from benchmarks.report.study import difference, pilot_table, study_table
from benchmarks.study import cells as study_cells
from benchmarks.study import command
from benchmarks.study.cells import KIND, Plan, do, folds, plain
from benchmarks.study.compute import budget, pretraining_config, with_lengths
from benchmarks.study.rows import (
    BASE,
    CLIPS,
    DECODERS,
    DEPTHS,
    FEW,
    LONG,
    MOTIONS,
    PROBES,
    ROWS,
    SCRATCH,
    SHORT,
    Cell,
    cells,
)  # fmt: skip
from benchmarks.study.sets import LabelledSet, Rendered, own_set, rendered_set, with_few_labels
from benchmarks.study.sizes import CANDIDATES, CHOSEN, tiny
from tests.support.labelled import in_folds
from videomae_fast.data.lock import FolderLock
from videomae_fast.tasks.pretraining import grid_and_masks
from videomae_fast.training.errors import InterruptedRunError

SETTINGS = CANDIDATES[CHOSEN]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return in_folds(tmp_path_factory.mktemp("set"))


def test_every_row_is_a_model_and_masks_that_can_be_and_has_a_name_of_its_own() -> None:
    assert len({(row.set, row.slug) for row in ROWS}) == len(ROWS)
    for settings in (*CANDIDATES.values(), tiny()):
        for row in ROWS:
            grid_and_masks(pretraining_config(settings, row))


def test_the_papers_choices_are_all_there() -> None:
    told = {f"{row.table}: {row.name}" for row in ROWS}
    for one in ("decoder mask: none", "decoder mask: frame 0.5", "decoder mask: random 0.5",
                "decoder mask: running-cell 0.25", "decoder mask: running-cell 0.75",
                "encoder mask: tube 0.9", "encoder mask: random 0.75",
                "encoder mask: random 0.9", "encoder mask: frame 0.75", "loss: all decoded",
                "decoder depth: 1", "decoder depth: 4"):  # fmt: skip
        assert one in told


@pytest.mark.parametrize("name", CANDIDATES)
def test_all_rows_have_the_same_compute(name: str) -> None:
    settings = CANDIDATES[name]
    base = budget(settings, BASE, 10)
    assert base.pretraining_steps == settings.pretraining["schedule.steps"]
    for row in (*DECODERS, *DEPTHS, *FEW):
        if row.arm == "pre-trained":
            assert budget(settings, row, 10).pretraining == pytest.approx(
                base.pretraining, rel=0.01
            )
    none = budget(settings, DECODERS[0], 10)
    assert none.pretraining_steps < base.pretraining_steps  # it decodes twice as many tokens
    long = budget(settings, SCRATCH, 10)
    assert long.finetuning == pytest.approx(base.pretraining + base.finetuning, rel=0.01)
    assert budget(settings, SHORT, 10).finetuning == base.finetuning
    again = budget(settings, LONG, 10)
    assert (again.pretraining, again.finetuning) == (base.pretraining, long.finetuning)
    assert budget(settings, PROBES[0], 10).finetuning_steps == 0


def test_an_epoch_is_as_long_whatever_the_set() -> None:
    found = with_lengths(SETTINGS, BASE, budget(SETTINGS, BASE, 10))
    for fields in (found.pretraining, found.finetuning):
        assert fields["data.epoch_size"] == 20 * fields["optim.videos_per_step"]
        assert fields["schedule.steps"] // 20 == fields["schedule.epochs"]


def test_what_says_most_comes_first() -> None:
    order = cells({CLIPS: range(5), MOTIONS: [0]}, [0, 1, 2])
    main = {BASE, SCRATCH, *FEW, LONG}
    once = 5 * (len(ROWS) - len(FEW)) + len(FEW)
    assert len(order) == len(set(map(str, order))) == once + 2 * (5 * 3 + len(FEW))
    assert [cell.fold for cell in order[:5]] == list(range(5))
    assert {cell.row for cell in order[:21]} == main
    assert {cell.row for cell in order[:once]} == set(ROWS)
    assert {cell.seed for cell in order[:once]} == {0}
    assert {cell.row for cell in order[once:]} == main
    assert {cell.seed for cell in order[once:]} == {1, 2}


def test_few_labels_are_of_training_alone_and_keep_their_pixels() -> None:
    clips = tuple(
        Clip(f"{label}-{fold}-{n}.mp4", label, fold)
        for label in (0, 1) for fold in range(3) for n in range(4)
    )  # fmt: skip
    few = with_few_labels(clips, 1, 3, seed=5)
    assert [(c.path, c.fold) for c in few] == [(c.path, c.fold) for c in clips]
    for label in (0, 1):
        assert sum(c.label == label and c.fold != 1 for c in few) == 3
        assert sum(c.label == label and c.fold == 1 for c in few) == 4
    assert few == with_few_labels(clips, 1, 3, seed=5) != with_few_labels(clips, 1, 3, seed=6)
    half = with_few_labels(clips, 1, 0.5, seed=0)
    assert sum(c.label >= 0 and c.fold != 1 for c in half) == 8
    assert with_few_labels(clips, 1, None, 0) == clips
    with pytest.raises(ValueError, match="which has 8 clips"):
        with_few_labels(clips, 1, 9, 0)


def test_a_list_is_dealt_to_folds_class_by_class(tmp_path: Path) -> None:
    path = tmp_path / "clips.txt"
    path.write_text("".join(f"{label}-{n}.mp4 {label}\n" for label in (0, 1) for n in range(7)))
    found = own_set(path)
    assert found.folds == (0, 1, 2, 3, 4)
    assert found.data == tmp_path
    for label in (0, 1):
        assert sorted(c.fold for c in found.clips if c.label == label) == [0, 0, 1, 1, 2, 3, 4]
    path.write_text("a.mp4 0\nb.mp4 1\n")
    with pytest.raises(ValueError, match="label 0 has 1 clips"):
        own_set(path)


def words_of(data: Path, tmp_path: Path, *more: str) -> list[str]:
    return ["--tiny", "--data", str(data), "--threads", "1", "--work", str(tmp_path / "work"),
            "--out", str(tmp_path / "out"), *more]  # fmt: skip


def newest(tmp_path: Path, kind: str) -> dict:
    return json.loads(max((tmp_path / "out").glob(f"{kind}-cpu-*.json")).read_text())


def test_a_slice_does_the_next_cells_and_says_what_is_missing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(data, tmp_path, "--seeds", "0", "--folds", "0", "--tables",
                     "what pre-training is worth", "labels")  # fmt: skip
    assert command.main([*words, "--minutes", "0"]) == 0
    assert "No cell is done yet, of 16" in capsys.readouterr().out
    kept = command.cells

    def three(*given: object) -> list[Cell]:  # of them; one of each arm that is trained
        every = kept(*given)
        return [every[0], every[1], next(c for c in every if c.row.set == MOTIONS), *every[-1:]]

    monkeypatch.setattr(command, "cells", three)
    assert command.main(words) == 0
    told = capsys.readouterr().out
    assert "all cells are done" in told
    assert "about 0:0" in told  # time left, by the first cell
    record = newest(tmp_path, "study")
    assert len(record["cells"]) == len(record["planned"]) == 4
    monkeypatch.setattr(command, "do", None)  # all are there
    assert command.main(words) == 0

    monkeypatch.setattr(command, "cells", kept)
    assert command.main([*words, "--minutes", "0"]) == 0
    assert "12 of 16 cells are missing; rows without any" in capsys.readouterr().out
    assert not list((tmp_path / "work" / "clips").glob("what-*/fold-*"))  # runs of whole cells
    changed = replace(tiny(), probe_epochs=3)
    monkeypatch.setattr(command, "tiny", lambda: changed)
    with pytest.raises(SystemExit):
        command.main(words)
    assert "is of other settings" in capsys.readouterr().err


def test_probes_share_the_pre_training_of_the_base(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, kept = own_set(data), command.cells
    wanted = (BASE, *PROBES)
    monkeypatch.setattr(
        command, "cells", lambda *given: [c for c in kept(*given) if c.row in wanted]
    )
    plans = [Plan.of_cell(Cell(row, 1, 0), own, tiny(), tmp_path) for row in wanted]
    assert len({json.dumps(plan.settings.pretraining, sort_keys=True) for plan in plans}) == 1
    assert command.main(words_of(data, tmp_path, "--seeds", "0", "--folds", "1")) == 0
    assert len(list((tmp_path / "work" / "clips").glob("*/fold-1-seed-0/pretraining"))) == 1
    by_arm = {cell["arm"]: cell for cell in newest(tmp_path, "study")["cells"]}
    assert set(by_arm) == {"pre-trained", "linear probe", "attentive probe"}
    assert by_arm["attentive probe"]["learning_rate"] in tiny().attentive_rates


def test_calls_at_the_same_time_share_the_cells(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What another does is left to it, what needs the pre-training that it makes too; what it has
    done counts."""
    kept = command.cells
    wanted = (BASE, SHORT, *PROBES[1:])
    monkeypatch.setattr(
        command, "cells", lambda *given: [c for c in kept(*given) if c.row in wanted]
    )
    words = words_of(data, tmp_path, "--seeds", "0", "--folds", "0")
    records = tmp_path / "out" / command.CELLS
    plan, probe = (
        Plan.of_cell(Cell(row, 0, 0), own_set(data), tiny(), records) for row in (BASE, PROBES[1])
    )
    with FolderLock(folds(plan, tmp_path / "work")[1].folder, "does a cell"):
        assert command.main(words) == 0
    told = capsys.readouterr().out
    assert told.count("another process does it") == 3  # the first again, after one in between
    assert "2 cells are left" in told
    assert [cell["row"] for cell in newest(tmp_path, "study")["cells"]] == [SHORT.name]

    done = study_cells.run_arm

    def meanwhile(*given: Any, **more: Any) -> dict[str, Any]:
        found = done(*given, **more)
        monkeypatch.setattr(study_cells, "run_arm", done)
        assert do(probe, tmp_path / "elsewhere", ["elsewhere"], print) is not None
        return found

    monkeypatch.setattr(study_cells, "run_arm", meanwhile)
    assert command.main(words) == 0
    assert PROBES[1].name not in capsys.readouterr().out.split("\n\n")[0]
    assert json.loads(probe.path.read_text())["command"] == "elsewhere"


def test_one_call_renders_while_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both would write the same files."""
    other = FolderLock(tmp_path, "renders clips")

    def sleep(_: float) -> None:
        assert not list(tmp_path.rglob("*.mp4"))
        other.close()

    monkeypatch.setattr("time.sleep", sleep)
    size = Rendered(unlabelled=1, labelled=1, scored=1, side=32, seconds=0.25)
    assert len(rendered_set(tmp_path, size).clips) == 17
    assert f"waiting: {tmp_path}: another process renders clips here" in capsys.readouterr().out


def test_the_pilot_is_a_record_of_its_own(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(words_of(data, tmp_path, "--pilot")) == 0
    record = newest(tmp_path, "study-pilot")
    (one,) = record["candidates"]
    assert {cell["arm"] for cell in one["cells"]} == {"pre-trained", "from scratch"}
    assert f"Taken: {CHOSEN}" in pilot_table(record)
    assert CHOSEN in CANDIDATES
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tables", "masks"], "--tables 'masks': there are decoder depth"),
        (["--pilot"], "--pilot needs --data"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_refusals(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(
            [*words, "--tiny", "--threads", "1", "--out", str(tmp_path), "--work", str(tmp_path)]
        )
    assert told in capsys.readouterr().err


def test_a_stopped_slice_ends_as_a_stopped_run_does(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise InterruptedRunError("stopped, and saved", signal.SIGTERM)

    monkeypatch.setattr(command, "do", stopped)
    assert command.main(words_of(data, tmp_path, "--seeds", "0")) == 128 + signal.SIGTERM
    assert capsys.readouterr().err.splitlines()[-1] == "stopped, and saved"


def cell(row: str, fold: int, seed: int, accuracy: float, table: str = "t") -> dict:
    return {"set": CLIPS, "table": table, "row": row, "arm": row.split(",")[0], "fold": fold,
            "seed": seed, "accuracy": accuracy, "videos": 40, "seconds": 60.0,
            "pretraining_seconds": 60.0, "budget": {"pretraining": 10**12, "finetuning": 10**12},
            "classes": 10}  # fmt: skip


def record_of(done: list[dict], planned: list[dict]) -> dict:
    return {
        "cells": done, "planned": planned, "base_in": {"masks": "running-cell 0.5"},
        "sets": {CLIPS: {"name": "some", "clips": 50, "labelled": 40, "classes": 10,
                         "folds": {"0": 20, "1": 20}}},
        "settings": {"tiny": False, "seeds": [0],
                     "base": json.loads(json.dumps(SETTINGS.to_dict()))},
        "machine": {"cpu": "a", "threads": 2, "processor": {"name": "a"}},
        "date": "2026-01-01T00:00:00", "commit": "abc", "command": "c",
    }  # fmt: skip


def test_the_table_pairs_folds_and_counts_what_is_missing() -> None:
    done = [
        cell("pre-trained", 0, 0, 0.6), cell("pre-trained", 1, 0, 0.5),
        cell("frame 0.5", 0, 0, 0.5), cell("frame 0.5", 1, 0, 0.3),
    ]  # fmt: skip
    planned = [*done, cell("frame 0.5", 1, 1, 0.0), cell("random 0.5", 0, 0, 0.0)]
    told = study_table(record_of(done, planned))
    assert told.startswith("What differs from the papers")
    assert "| pre-trained | **55.0** | 7.1 |  |  | 2 of 2 | 2.0 | 2.0 |" in told
    assert "| frame 0.5 | **40.0** | 14.1 | -15.0 | 5.0 | 2 of 3 | 2.0 | 2.0 |" in told
    assert "2 of 6 cells are missing; rows without any: t: random 0.5" in told
    assert "All 4 cells are done." in study_table(record_of(done, done))


def test_the_base_comes_first_where_it_is_one_of_what_differs() -> None:
    """Under the name that it has there, and each question once, whatever the order of cells."""
    done = [
        cell("pre-trained", 0, 0, 0.6), cell("5, pre-trained", 0, 0, 0.3, "labels"),
        cell("frame 0.5", 0, 0, 0.5, "masks"), cell("linear probe", 0, 0, 0.2),
    ]  # fmt: skip
    told = study_table(record_of(done, done))
    assert told.count("**t** (some)") == 1
    some = ("| running-cell", "| frame")
    first, second = [line for line in told.splitlines() if line.startswith(some)]
    assert first.startswith("| running-cell 0.5 (base) | **60.0** |  |  |  | 1 of 1 |")
    assert second.startswith("| frame 0.5 | **50.0** |  | -10.0 |")


def test_few_labels_are_compared_with_from_scratch_with_as_few() -> None:
    done = [
        cell("5 a class, pre-trained", 0, 0, 0.6, "labels"),
        cell("5 a class, from scratch", 0, 0, 0.4, "labels"),
        cell("5 a class, pre-trained", 0, 1, 0.8, "labels"),
        cell("5 a class, from scratch", 0, 1, 0.5, "labels"),
    ]
    told = study_table(record_of(done, done))
    assert "| 5 a class, pre-trained | **70.0** | 14.1 | +25.0 | 5.0 |" in told
    assert "| 5 a class, from scratch | **45.0** | 7.1 |  |  |" in told


def test_of_one_fold_seeds_are_what_differs() -> None:
    found = difference({(0, 0): 0.5, (0, 1): 0.7}, {(0, 0): 0.4, (0, 1): 0.4, (1, 0): 0.0})
    assert found is not None
    assert found == (pytest.approx(0.2), pytest.approx(0.1))
    assert difference({(0, 0): 0.5}, {(1, 0): 0.5}) is None


def test_a_set_counts_its_classes() -> None:
    clips = (Clip("a", 0, 0), Clip("b", 3, 0), Clip("c", -1, -1))
    assert LabelledSet(CLIPS, clips, Path(), (0,)).classes == 4


def test_a_cell_of_other_clips_is_not_taken_for_one_of_these(tmp_path: Path) -> None:
    clips = (Clip("a", 0, 0), Clip("b", 1, 1))
    plans = [
        Plan.of_cell(Cell(BASE, 0, 0), LabelledSet(CLIPS, some, tmp_path, (0,)), tiny(), tmp_path)
        for some in (clips, (*clips, Clip("c", 1, 0)))
    ]
    assert plans[0].record() is None
    record = {"kind": KIND, "settings": plain(plans[0].settings), "set_digest": plans[0].of.digest}
    plans[0].path.parent.mkdir(parents=True)
    plans[0].path.write_text(json.dumps(record))
    assert plans[0].record() == record
    with pytest.raises(ValueError, match="is of other clips"):
        plans[1].record()
