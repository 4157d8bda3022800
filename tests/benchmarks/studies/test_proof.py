"""The record of what the proof costs."""

from __future__ import annotations

import json

import pytest

from benchmarks.__main__ import main


def test_it_is_recorded(tmp_path, capsys):
    pytest.importorskip("transformers")
    assert main(["proof", "--tiny", "--rounds", "1", "--threads", "1", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("proof-tiny-cpu-*.json")
    record = json.loads(path.read_text())
    assert [row["proof"]["compared"] for row in record["rows"]] == [7, 4]
    assert all(0 < row["looking_s"]["median"] < row["proof_s"]["median"] for row in record["rows"])
    assert "ms a forward pass" in capsys.readouterr().out
