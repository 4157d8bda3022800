"""Launches are recorded with what Triton would specialise them on.

In a process of its own: tests/kernels import Triton interpreted, which has no launches to record.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
ROOT = Path(__file__).parents[3]
PROGRAM = """
import json, sys, torch, triton
import triton.language as tl
from benchmarks.common.launches import recorded

@triton.jit
def copy(x_ptr, out_ptr, maybe_ptr, count, stride, factor, SIZE: tl.constexpr = 64):
    o = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    tl.store(out_ptr + o * stride, tl.load(x_ptr + o, mask=o < count), mask=o < count)

x = torch.empty(100, dtype=torch.bfloat16, device="meta")
with recorded() as found:
    copy[(3, 2)](x[8:], x[1:], None, 17, 2**31, 0.5, num_warps=8)
    copy[lambda meta: (meta["SIZE"] // 16,)](x, x, None, count=32, stride=1, factor=1.0)
first, second = found
wrong = []
for change in ({"nothing": 1}, {"SIZE": "a string"}):
    try:
        second.given(**change).checked(90)
    except Exception as error:
        wrong.append(type(error).__name__)
second.checked(90)
json.dump({
    "signature": first.signature, "aligned": first.aligned, "programs": first.programs,
    "warps": [first.num_warps, second.num_warps], "stages": first.num_stages,
    "constant": [second.signature["stride"], second.arguments["SIZE"]], "grid": second.grid,
    "name": first.name, "wrong": wrong,
    "same": [
        first.key == first.given(factor=0.25, count=19).key,
        first.key == first.given(count=32).key,
        first.key == first.given(count=1).key,
        first.key == first.given(SIZE=32).key,
    ],
}, sys.stdout)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    path = tmp_path_factory.mktemp("launches") / "program.py"
    path.write_text(PROGRAM)
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(path)], env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_types_and_alignment_are_tritons_own(found):
    kinds = ["*bf16", "*bf16", "constexpr", "i32", "i64", "fp32", "constexpr"]
    assert list(found["signature"].values()) == kinds
    assert found["aligned"] == ["x_ptr", "stride"]  # 16 bytes on, and a multiple of 16
    assert found["constant"] == ["constexpr", 64]  # an integer that is 1, a default


def test_grid_and_options(found):
    assert found["programs"] == 6
    assert found["grid"] == [4]
    assert found["warps"] == [8, 4]
    assert found["stages"] == 3
    assert found["name"].endswith(".copy")


def test_launches_of_one_binary_have_one_key(found):
    assert found["same"] == [True, False, False, False]


def test_what_does_not_compile_is_told(found):
    assert len(found["wrong"]) == 2
    assert found["wrong"][0] == "KeyError"
