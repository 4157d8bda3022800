"""Kernels are compiled as launches would have them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.ops import machine_code

ROOT = Path(__file__).parents[3]


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
    """Heads of 88 values are multiples of 8, rows of cubes of 2: Triton has to be told."""
    assert {"1", "2"}.isdisjoint(accessed(rows, "short_forward"))
    assert {"1", "2"}.isdisjoint(accessed(rows, "short_forward", kind="stores"))
    # Rows of 3 × 14 pixels: 84 bytes of the prediction, 42 of the frames
    assert accessed(rows, "pixel_mse_kernel").keys() == {"4", "2"}
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
