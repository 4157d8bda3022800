"""The benchmark behind attention's "auto"."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from benchmarks.ops import attention_choice
from videomae_fast.ops._attention.choice import read_table


def test_it_measures_what_can_run(tmp_path, capsys):
    words = ["--device", "cpu", "--tiny", "--batch", "2", "--repeats", "2"]
    assert attention_choice.main([*words, "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "attention-choice.json").read_text())
    rows = {row["impl"]: row for row in record["results"]}
    assert rows["sdpa"]["correct"]
    assert rows["sdpa"]["seconds"]["count"] == 2
    for way in ("forward", "backward"):
        assert rows["flash"][way]["seconds"]["count"] == 2
        assert rows["flash"][way]["TFLOP/s"] > 0
    assert "cuDNN attention takes bf16 and fp16, not torch.float32" in rows["cudnn"]["unavailable"]
    assert "unavailable" in rows["flash-attn"]
    told = capsys.readouterr().out
    assert "TFLOP/s (" in told
    assert "a test: fastest: " in told


def test_the_fastest_goes_into_the_table(tmp_path):
    def row(impl: str, rate: float, keys: int) -> dict[str, object]:
        shape = {"head_dim": 64, "queries": 160, "keys": keys}
        return {"impl": impl, "TFLOP/s": rate, "seconds": {}, **shape}

    wrong = {"impl": "xformers", "head_dim": 64, "queries": 160, "keys": 160, "correct": False}
    results = [row("sdpa", 1.0, 160), row("triton", 2.0, 160), row("sdpa", 3.0, 944), wrong]
    path = tmp_path / "table.json"
    shape = {"head_dim": 64, "keys": 160}
    other = {"device": "NVIDIA H100", "queries": 160, "impl": "triton", **shape}
    stale = {"device": "NVIDIA H200", "queries": 9, "impl": "triton", **shape}
    path.write_text(json.dumps({"about": "x", "entries": [other, stale]}))
    attention_choice.write_table(attention_choice.fastest(results, "NVIDIA H200"), path)
    assert read_table(path) == {
        ("NVIDIA H100", 64, 160, 160): "triton",  # of the same capability, and another's
        ("NVIDIA H200", 64, 160, 160): "triton",
        ("NVIDIA H200", 64, 160, 944): "sdpa",
    }


def test_a_table_into_a_file_of_its_own(tmp_path):
    words = ["--device", "cpu", "--tiny", "--batch", "2", "--repeats", "2"]
    path = tmp_path / "new" / "table.json"
    assert attention_choice.main([*words, "--out", str(tmp_path), "--table", str(path)]) == 0
    table = read_table(path)
    own = {key: impl for key, impl in table.items() if key[0] == "cpu"}
    assert {**read_table(), **own} == table  # those of others that ship stay
    ((key, impl),) = own.items()
    assert key == ("cpu", 8, 5, 7)
    assert impl in attention_choice.IMPLS


@pytest.mark.parametrize("queries", [5, 7])
def test_the_truth_is_the_same_in_parts(queries, monkeypatch):
    shape = replace(attention_choice.TINY[0], queries=queries)
    tensors = attention_choice.inputs(shape, 5, torch.device("cpu"), torch.float32)
    whole = attention_choice.exact(tensors)
    monkeypatch.setattr(attention_choice, "AT_ONCE", 2)
    for a, b in zip(attention_choice.exact(tensors), whole, strict=True):
        torch.testing.assert_close(a, b)
    assert len(whole) == (3 if queries == 5 else 2)  # of queries apart, a gradient of their own


def test_a_wrong_backend_is_not_timed(monkeypatch):
    right = attention_choice.packed_attention

    def wrong(*args, impl, **options):
        out = right(*args, impl="sdpa" if impl == "triton" else impl, **options)
        return out * 1.1 if impl == "triton" else out

    monkeypatch.setattr(attention_choice, "packed_attention", wrong)
    shape = attention_choice.TINY[0]
    rows = attention_choice.measure(shape, 1, torch.device("cpu"), torch.float32, 1)
    by_name = {row["impl"]: row for row in rows}
    assert not by_name["triton"]["correct"]
    assert "seconds" not in by_name["triton"]


def test_the_table_of_a_record_from_elsewhere(tmp_path, monkeypatch):
    row = {"impl": "triton", "head_dim": 64, "queries": 160, "keys": 160, "TFLOP/s": 1.0}
    record = {"kind": "attention_choice", "machine": {"capability": "9.0", "device": "H"}}
    record["results"] = [{**row, "seconds": {}}]
    (tmp_path / "record.json").write_text(json.dumps(record))
    written = []
    monkeypatch.setattr(attention_choice, "write_table", written.append)
    assert attention_choice.main(["--table-of", str(tmp_path / "record.json")]) == 0
    assert [(e["device"], e["impl"]) for (e,) in written] == [("H", "triton")]


@pytest.mark.parametrize("wrong", [{"kind": "ops"}, {"machine": {"capability": None}}])
def test_no_table_of_what_no_gpu_was_measured_for(wrong, tmp_path, monkeypatch):
    record = {"kind": "attention_choice", "machine": {"capability": "9.0"}, "results": [], **wrong}
    (tmp_path / "record.json").write_text(json.dumps(record))
    monkeypatch.setattr(attention_choice, "write_table", lambda _: pytest.fail("written"))
    with pytest.raises(SystemExit):
        attention_choice.main(["--table-of", str(tmp_path / "record.json")])


def test_the_table_is_written_on_a_gpu_only(tmp_path):
    with pytest.raises(SystemExit):
        attention_choice.main(["--device", "cpu", "--tiny", "--write", "--out", str(tmp_path)])
