"""Other launches: they are made and undone, checked, and timed beside the one as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def interpreted(*words, cwd=ROOT):
    """In a process of its own: Triton decides once whether kernels are interpreted."""
    pytest.importorskip("triton")
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_it_runs_and_writes(tmp_path):
    words = ["-m", "benchmarks", "launch-choice", "--device", "cpu", "--tiny", "--batch", "1"]
    ops = ["--ops", "token_gather", "decoder_assembly_backward"]
    done = interpreted(*words, "--repeats", "1", "--out", str(tmp_path), *ops)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "launches-base-batch1.json").read_text())["results"]
    assert [r["launch"] for r in rows if r["op"] == "token_gather"] == [
        "as it is", "rows 8", "rows 32", "columns 128", "num_warps 8",
    ]  # fmt: skip
    assert all(r["correct"] and r["seconds"]["count"] == 1 for r in rows)
    assert "| token_gather (last decoder block) | as it is |" in done.stdout


SCRIPT = """
import torch
from benchmarks.ops import launch_choice as lc
from benchmarks.common.workload import TINY
from benchmarks.ops.cases import op_cases
from benchmarks.common.workload import Workload
from videomae_fast.kernels import add_layer_norm, attention_flash, attention_short, columns
from videomae_fast.kernels import token_gather as kernel

cases = op_cases(Workload(TINY, 1), torch.float32)
by_op = {(case.op, case.where): lc.changes(case) for case in cases}
assert len(by_op["attention", "encoder"]) == len(attention_short.FORWARD_LAUNCHES[64]) - 1
for op in ("attention_backward", "packed_attention_backward"):
    assert len(by_op[op, "encoder"]) == len(attention_short.ONE_PASS_LAUNCHES[64])
assert len(by_op["attention", "decoder"]) == len(lc.FLASH[0])
assert len(by_op["attention_backward", "decoder"]) == len(lc.FLASH[1]) + len(lc.FLASH[2])
names = [change.name for changes in by_op.values() for change in changes]
assert any("of keys: 64 queries" in name for name in names)

now, narrow = kernel.LAUNCH, attention_flash.NARROW
for changes in by_op.values():
    for change in changes:
        with change.made():
            assert kernel.LAUNCH != now or change.module != "token_gather"
            assert attention_flash.NARROW != narrow or change.module != "attention_flash"
assert kernel.LAUNCH is now and attention_flash.NARROW is narrow

# What computes something else, or crashes, is named and not timed.
case = next(case for case in cases if case.op == "token_gather")
right = kernel.token_gather
kernel.token_gather = lambda *args: right(*args) * (1.1 if kernel.LAUNCH.rows == 8 else 1.0)
lc.FIELDS["token_gather"] = ("token_gather", {"rows": (8, 32, 3)})  # a block of 3 rows can't be
rows = {row["launch"]: row for row in lc.measure(case, torch.float32, torch.device("cpu"), 1)}
assert not rows["rows 8"]["correct"] and "seconds" not in rows["rows 8"], rows
assert "failed" in rows["rows 3"] and "seconds" not in rows["rows 3"], rows
assert rows["rows 32"]["seconds"] and rows["as it is"]["seconds"]
copy = {"TB/s": 1.0}
text = lc.table({"results": list(rows.values()), "copy": copy})
assert "rows 8 | WRONG" in text and "| 1.00 |" in text

# Where the launch as it is fails, the others are compared with nothing, and it is an error.
assert [name for name, row in rows.items() if lc._wrong(row)] == ["rows 8"]
failed = {**rows["rows 3"], "launch": "as it is"}
text = lc.table({"results": [*rows.values(), failed, rows["rows 32"]], "copy": copy})
assert text.endswith("% |  |")
assert lc._wrong(failed)

# Fields of several modules change together, and change back.
sums, layer_norm = columns.LAUNCH, add_layer_norm.LAUNCH
several = lc._together("add_layer_norm", {"backward_lane_values": 64, **lc.SUMS})
with several.made():
    assert columns.LAUNCH.rows == lc.SUMS["columns.rows"]
    assert add_layer_norm.LAUNCH.backward_lane_values == 64
assert columns.LAUNCH is sums and add_layer_norm.LAUNCH is layer_norm

# What can be asked for is what is tried.
tried = {case.op for case in cases if lc.changes(case)}
assert tried == set(lc.TRIED), tried ^ set(lc.TRIED)
"""


def test_all_is_compiled_before_the_gpu_is_used():
    """Each launch as it is and changed, in both alignments of a program's rows."""
    pytest.importorskip("triton")
    script = (
        "from benchmarks.ops.launch_choice import _launches;"
        "job = 'small', 2, 'bias_gelu_backward', 'encoder', 'backward_stages 3';"
        "print(_launches(job, 90))"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3"], done.stderr


def test_changes_are_made_undone_and_checked():
    done = interpreted("-c", SCRIPT)
    assert done.returncode == 0, done.stderr
