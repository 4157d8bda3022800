from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from videomae_fast.data import Failure, FailureReport, FailureShareError, ListError, read_report


def failure(step: int, path: str = "a.mp4", reason: str = "0 bytes") -> Failure:
    return Failure(path, "list.csv", 3, reason, step, epoch=0, position=step * 4)


def test_lines_are_there_at_once(tmp_path: Path) -> None:
    report = FailureReport(tmp_path / "new" / "folder", rank=2, world=4)
    report.add([failure(0), failure(0, "b.mp4")], draws=4)
    report.add([failure(1)], draws=4)
    report.add([], draws=4)
    assert report.path == tmp_path / "new" / "folder" / "bad_files.rank2.jsonl"
    lines = report.path.read_text().splitlines()  # before it is closed
    assert [json.loads(line)["step"] for line in lines] == [0, 0, 1]
    assert json.loads(lines[0]) == {
        "path": "a.mp4",
        "list_path": "list.csv",
        "line": 3,
        "reason": "0 bytes",
        "step": 0,
        "epoch": 0,
        "position": 0,
    }
    assert (report.failed, report.distinct, report.draws, report.share) == (3, 2, 12, 0.25)
    report.close()


def test_resume_keeps_earlier_lines_and_counts_nothing_twice(tmp_path: Path) -> None:
    steps = {step: [failure(step, f"{step}.mp4")] for step in (1, 3, 5, 6)}
    with FailureReport(tmp_path) as whole:
        for step in range(8):
            whole.add(steps.get(step, []), draws=4)
    uninterrupted = whole.path.read_bytes()
    counts = (whole.failed, whole.distinct, whole.draws)

    # Killed after step 6, and the checkpoint is of step 5: steps 5 and 6 are made again.
    whole.path.write_bytes(uninterrupted + b'{"path": "cut o')
    with FailureReport(tmp_path, start_step=5, draws_before=5 * 4) as resumed:
        assert [f.step for f in read_report(resumed.path)] == [1, 3]
        for step in range(5, 8):
            resumed.add(steps.get(step, []), draws=4)
    assert resumed.path.read_bytes() == uninterrupted
    assert (resumed.failed, resumed.distinct, resumed.draws) == counts
    assert not list(tmp_path.glob("*.partial"))


def test_a_fresh_start_begins_a_new_report(tmp_path: Path) -> None:
    with FailureReport(tmp_path) as report:
        report.add([failure(0)], draws=4)
    with FailureReport(tmp_path) as report:
        assert report.failed == 0
        assert report.path.read_text() == ""


def test_fewer_ranks_keep_the_lines_of_those_that_are_gone(tmp_path: Path) -> None:
    for rank in range(4):
        with FailureReport(tmp_path, rank, world=4) as report:
            report.add([failure(1, f"early{rank}"), failure(7, f"late{rank}")], draws=8)
    reports = [FailureReport(tmp_path, rank, world=2, start_step=5) for rank in range(2)]
    assert [report.failed for report in reports] == [2, 2]
    left = [
        f.path for rank in range(4) for f in read_report(tmp_path / f"bad_files.rank{rank}.jsonl")
    ]
    assert left == ["early0", "early1", "early2", "early3"]


def test_share(tmp_path: Path) -> None:
    report = FailureReport(tmp_path)
    report.check(0.0)
    report.add([failure(0), failure(0, "b", "no video stream"), failure(0, "c")], draws=100)
    report.check(0.03)
    with pytest.raises(FailureShareError) as caught:
        report.check(0.029)
    message = str(caught.value)
    assert "3 of 100 draws" in message
    assert "3 different files" in message
    assert str(report.path) in message
    assert message.index("2 x 0 bytes") < message.index("1 x no video stream")
    report.check(0.01, failed=5, draws=1000)
    with pytest.raises(FailureShareError, match="50 of 1000"):
        report.check(0.01, failed=50, draws=1000)


def test_where_missing_files_were_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    report = FailureReport(tmp_path / "run")
    report.add([failure(0, f"v/{name}.mp4", "no such file") for name in "ba"], draws=2)
    with pytest.raises(FailureShareError) as caught:
        report.check(0.5)
    assert "The first: v/b.mp4 (list.csv:3): no such file. " in str(caught.value)
    assert (
        f"All of them are missing. v/a.mp4 was looked for at {tmp_path}/v/a.mp4: relative paths of "
        "a list start from the working folder, or from its root (pretrain: --data LIST,root="
    ) in str(caught.value)
    report.add([failure(1, "c.mp4")], draws=1)
    with pytest.raises(FailureShareError) as caught:
        report.check(0.5)
    assert "All of them are missing" not in str(caught.value)


def test_names_of_any_bytes(tmp_path: Path) -> None:
    names = ["café/影片.mp4", os.fsdecode(b"\xff\xfe.mp4")]
    with FailureReport(tmp_path) as report:
        report.add([failure(0, name) for name in names], draws=2)
    assert [f.path for f in read_report(report.path)] == names
    assert "café/影片.mp4".encode() in report.path.read_bytes()
    with FailureReport(tmp_path, start_step=1) as report:
        assert report.distinct == 2


def test_a_report_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "bad_files.rank0.jsonl"
    with FailureReport(tmp_path) as report:
        report.add([failure(1)], draws=4)
    whole = path.read_text()
    path.write_text('{"path": 3}\n' + whole)
    for read in (lambda: FailureReport(tmp_path, start_step=3), lambda: read_report(path)):
        with pytest.raises(ListError, match=r"bad_files\.rank0\.jsonl:1: found"):
            read()


@pytest.mark.parametrize(
    "damage", [b"\0" * 100 + b"\n", b'{"path": 3}\n{}\n', b"[" * 10**5 + b"\n"]
)
def test_damage_behind_the_lines_that_count_blocks_nothing(tmp_path: Path, damage: bytes) -> None:
    with FailureReport(tmp_path) as report:
        report.add([failure(1), failure(2)], draws=4)
    whole = report.path.read_bytes()
    report.path.write_bytes(whole + damage)
    with FailureReport(tmp_path, start_step=3) as resumed:
        assert resumed.failed == 2
        assert resumed.path.read_bytes() == whole
        assert resumed.aside == [tmp_path / "bad_files.rank0.jsonl.damaged"]
        assert resumed.aside[0].read_bytes() == whole + damage
