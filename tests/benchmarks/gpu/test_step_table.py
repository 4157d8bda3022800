"""The table of the step before and now, made from records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu import step_table
from benchmarks.gpu.calls import Call

RESULTS = Path(step_table.RESULTS)
MACHINE_CODE = (
    RESULTS / "archive" / "machine-code-sm90-20261126-before.json",
    RESULTS / "machine-code-sm90-20261126.json",
)


def call(op: str, phase: str = "backward", moved: int = 2000) -> Call:
    return Call(op, "", phase, moved, moved, 0)


def test_what_is_counted() -> None:
    calls = [
        call("aten::cat"), call("aten::cat", moved=8), call("aten::stack"), call("aten::_to_copy"),
        call("aten::_foreach_copy_", "update"), call("aten::sum"), call("aten::sum", "forward"),
    ]  # fmt: skip
    found = step_table.counted(calls)
    names = ("calls", "casts", "concatenations", "sums")
    assert [found[name] for name in names] == [7, 2, 2, 1]  # numbers joined to a vector don't count
    assert found["gigabytes"] == pytest.approx((6 * 4000 + 16) / 1e9)
    assert 0 < found["H200 ms"] < found["H100 ms"]


def test_the_table_is_made_from_a_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"size": "base", "batch": 8, "tree": "now", **step_table.counted([call("aten::cat")])}
    record = {
        "before": "abc",
        "results": [{**row, "kept": 120.4}],
        "kernels": step_table.kernels(*MACHINE_CODE, ["base"]),
    }
    path = tmp_path / "record.json"
    path.write_text(json.dumps(record))
    assert step_table.main(["--record", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "Counted and modelled, not measured" in printed
    assert "| base | 8 | now | 1 | 0 | 1 | 0 | 0.0 | 120 |" in printed
    assert "| base | add_layer_norm (encoder) | 64 → 64 | 2.42 → 0.97 | 40 → 0 |" in printed


def test_a_tree_that_cannot_be_traced_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=str(tmp_path)):
        step_table.traced(tmp_path, "small", 1)


def test_this_tree_is_traced() -> None:
    found = step_table.traced(step_table.ROOT, "small", 1, "shadow-weights")
    assert found["concatenations"] == 0
    assert found["casts"] <= 10  # whatever the depth; 148 without copies in ViT-B
