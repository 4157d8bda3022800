"""The per-op benchmark: checks before it times, and says what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from benchmarks import op_speed
from benchmarks.ceilings import TINY
from benchmarks.op_cases import op_cases
from benchmarks.workload import Workload
from videomae_fast.ops._dispatch import REGISTRY, Backend, Op


def test_every_op_with_bytes_has_a_case():
    """Attention has a benchmark of its own, masks are few bytes: not measured here."""
    cases = {case.op for case in op_cases(Workload(TINY, 2), torch.float32)}
    others = {"mask_indices"}
    assert cases == {name for name in REGISTRY if "attention" not in name} - others


def test_it_runs_and_writes(tmp_path, capsys):
    words = ["--tiny", "--batch", "2", "--repeats", "2", "--no-compile", "--out", str(tmp_path)]
    assert op_speed.main([*words, "--ops", "token_gather", "bias_gelu"]) == 0
    (path,) = tmp_path.glob("*.json")
    record = json.loads(path.read_text())
    assert record["copy"]["TB/s"] > 0
    timed = [row for row in record["results"] if "seconds" in row]
    assert {row["op"] for row in timed} == {"token_gather", "bias_gelu"}
    assert all(row["correct"] for row in timed)
    assert "| of copy |" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_wrong_backend_is_not_timed(monkeypatch, dtype):
    case = next(c for c in op_cases(Workload(TINY, 2), dtype) if c.op == "bias_gelu")
    right = REGISTRY["bias_gelu"].backends["reference"]
    wrong = replace(right, run=lambda x, bias: right.run(x, bias) * 1.01)
    patched = Op("bias_gelu", {"wrong": wrong, "reference": right})
    monkeypatch.setitem(REGISTRY, "bias_gelu", patched)
    rows = op_speed.measure(case, dtype, torch.device("cpu"), 1, compiled=False)
    by_name = {row["backend"]: row for row in rows}
    assert by_name["reference"]["correct"]
    assert not by_name["wrong"]["correct"]
    assert "seconds" not in by_name["wrong"]
    never = Backend(right.run, lambda *_: "it is Sunday")
    monkeypatch.setitem(REGISTRY, "bias_gelu", Op("x", {"reference": right, "never": never}))
    rows = op_speed.measure(case, dtype, torch.device("cpu"), 1, compiled=False)
    assert rows[1]["unavailable"] == "it is Sunday"
