"""What a record says of the processor, and how fast it multiplies matrices."""

from __future__ import annotations

import pytest
import torch

from benchmarks.common import processor as processors
from benchmarks.common.processor import machine_name, matmul_rates, processor, processor_told
from benchmarks.common.record import environment

ZEN4 = """processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 25
model		: 17
model name	: AMD EPYC 9B14
stepping	: 1
flags		: fpu avx2 avx512f avx512_bf16 amx

processor	: 1
model		: 99
"""


def test_linux_describes_it(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text(ZEN4)
    found = processor(path)
    assert found == {
        "name": "AMD EPYC 9B14",
        "vendor": "AuthenticAMD",
        "family": 25,
        "model": 17,
        "stepping": 1,
        "instructions": ["AVX2", "AVX-512", "AVX-512 BF16"],
    }
    machine = {"device": "cpu", "cpu": found["name"], "processor": found, "threads": 2}
    assert machine_name(machine) == "AMD EPYC 9B14 (family 25, model 17), 2 threads"
    assert machine_name({**machine, "device": "NVIDIA H200"}) == "NVIDIA H200"


@pytest.mark.parametrize("content", [None, "processor\t: 0\nBogoMIPS\t: 50.00\n"])
def test_another_system_does_not(content, tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo"
    if content:
        path.write_text(content)
    monkeypatch.setattr(processors.platform, "processor", lambda: "arm")
    found = processor(path)
    assert found["name"] == "arm"
    assert {found[name] for name in ("vendor", "family", "model", "instructions")} == {None}
    machine = {"device": "cpu", "cpu": "arm", "processor": found, "threads": 1}
    assert machine_name(machine) == "arm, 1 threads"
    rates = {"fp32": 10.0, "fp32, linear": 20.0, "bf16": 5.0}
    assert processor_told({**machine, "matmul_GFLOP/s": rates}).startswith(
        "instructions not known;"
    )


def test_rates_are_of_the_threads_asked_for_and_leave_torch_as_it_was():
    before = torch.get_num_threads()
    found = matmul_rates(1)
    assert set(found) == {"fp32", "fp32, linear", "bf16"}
    assert all(1e-2 < value < 1e5 for value in found.values())
    assert torch.get_num_threads() == before
    assert matmul_rates(1) is found  # measured once


def test_a_rate_counts_multiplications_and_additions(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(processors.time, "perf_counter", lambda: float(next(clock)))
    assert processors._rate(lambda: None) == 2 * processors.SIDE**3 / 1e9


def test_a_record_names_it():
    machine = environment("cpu", ["python"])["machine"]
    assert machine["processor"] == processor()
    assert machine["cpu"] == processor()["name"]
    assert machine["matmul_GFLOP/s"] == matmul_rates(torch.get_num_threads())
