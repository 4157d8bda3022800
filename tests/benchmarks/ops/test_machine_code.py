"""What is read out of machine code, and that kernels are compiled as launches would have them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.ops import machine_code

ROOT = Path(__file__).parents[3]
CODE = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;                /* 0x00 */
        /*0010*/              @!P0 LDG.E.128 R4, desc[UR4][R2.64] ;      /* 0x01 */
        /*0020*/               @P1 LDG.E.U8.CONSTANT R8, desc[UR4][R2.64] ;
        /*0030*/                   LDG.E.U16 R8, desc[UR4][R2.64] ;
        /*0040*/                   LDG.E R8, desc[UR4][R2.64] ;
        /*0050*/                   LDGSTS.E.BYPASS.128 [R12], desc[UR4][R2.64] ;
        /*0060*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR8], R24 ;
        /*0070*/                   STG.E.64 desc[UR4][R2.64], R4 ;
        /*0080*/             @UP0  STL [R1], R4 ;
"""


def test_instructions_and_widths():
    found = machine_code.instructions(CODE)
    assert found["HGMMA.64x64x16.F32.BF16"] == 1
    assert found["LDG.E.128"] == found["STL"] == 1
    assert machine_code.accesses(found, "LDG") == {"16": 1, "4": 1, "2": 1, "1": 1}
    assert machine_code.accesses(found, "LDGSTS") == {"16": 1}
    assert machine_code.accesses(found, "STG") == {"8": 1}
    assert machine_code.accesses(Counter(), "STG") == {}


@pytest.mark.parametrize(
    ("registers", "shared", "warps", "resident"),
    [
        (32, 0, 4, 64),  # the most warps
        (64, 0, 4, 32),
        (168, 0, 4, 12),  # three programs
        (32, 100_000, 4, 8),  # two programs' shared memory
        (16, 0, 1, 32),  # the most programs
        (255, 0, 16, 0),  # does not fit at all
    ],
)
def test_how_many_warps_fit(registers, shared, warps, resident):
    assert machine_code.resident_warps(registers, shared, warps, 90) == resident


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """In a process of its own: tests/kernels import Triton interpreted. Some 20 seconds."""
    pytest.importorskip("triton")
    out = tmp_path_factory.mktemp("machine-code")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    words = ["--size", "giant", "--batch", "4", "--out", str(out), "--ops"]
    ops = ["attention", "pixel_mse", "bias_gelu", "append_rows_backward", "mask_indices"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "machine-code", *words, *ops, "crop_resize"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((out / "machine-code-sm90.json").read_text())
    assert "| giant | attention (encoder) | attention_short.short_forward |" in done.stdout
    return record["results"]


def accessed(rows, kernel, where="", kind="loads"):
    (row,) = (r for r in rows if r["kernel"].endswith(kernel) and where in r["where"])
    return row[kind]


@pytest.mark.slow
def test_giant_is_read_and_written_in_wide_pieces(rows):
    """Heads of 88 values and cubes of 1176 are multiples of 8, which Triton has to be told."""
    assert {"1", "2"}.isdisjoint(accessed(rows, "short_forward"))
    assert {"1", "2"}.isdisjoint(accessed(rows, "short_forward", kind="stores"))
    assert accessed(rows, "pixel_mse_kernel")["16"] == 1
    for where in ("encoder", "decoder"):
        assert {"1", "2"}.isdisjoint(accessed(rows, "bias_gelu._forward", where))
    assert not any(row["stack"] or row["local"] for row in rows)


@pytest.mark.slow
def test_matrix_products_are_hoppers(rows):
    """Products of a warp group: anything else is a slower path."""
    assert accessed(rows, "short_forward", kind="matrix").keys() == {"HGMMA"}
    assert accessed(rows, "flash_forward", "(decoder)", kind="matrix").keys() == {"HGMMA"}
    assert accessed(rows, "bias_gelu._forward", "encoder", kind="matrix") == {}


def test_it_compiles_nothing_when_interpreted(monkeypatch, capsys):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(SystemExit):
        machine_code.main([])
    assert "unset TRITON_INTERPRET" in capsys.readouterr().err
