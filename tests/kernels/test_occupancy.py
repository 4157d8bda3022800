"""How many programs are launched: as many as a multiprocessor holds, by the compiled kernel."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace

import pytest
import torch


@pytest.fixture
def occupancy(_interpreter):
    """Imported inside a test: Triton's switch must be on."""
    return import_module("videomae_fast.kernels.occupancy")


@pytest.mark.parametrize(
    ("registers", "shared", "warps", "programs"),
    [
        (168, 4096, 4, 3),  # 21 kB of registers each: 3 × 4 × 5376 of 65,536
        (169, 4096, 4, 2),  # registers come in eights: 176
        (64, 0, 1, 32),  # no more programs, whatever registers are left
        (32, 0, 8, 8),  # 64 warps
        (32, 115_712, 4, 2),  # 114 KB and what the hardware adds, twice
        (255, 232_448, 16, 1),  # even what does not fit by this count: the launch would say so
    ],
)
def test_what_a_multiprocessor_holds(occupancy, registers, shared, warps, programs):
    assert occupancy.resident(registers, shared, warps) == programs


def test_a_gpu_is_asked_what_the_compiler_made(occupancy, monkeypatch):
    """Once for arguments of the same kinds: their values must not count, or sums could differ."""
    compiled = []

    class Kernel(occupancy.JITFunction):
        def __init__(self):
            pass

        __hash__ = object.__hash__

        def warmup(self, *arguments, grid, num_warps, **constants):
            compiled.append((arguments, grid, num_warps, constants))
            loaded = SimpleNamespace(metadata=SimpleNamespace(shared=2048))
            loaded._init_handles = lambda: setattr(loaded, "n_regs", 120)
            return loaded

    card = SimpleNamespace(
        major=8, minor=9, multi_processor_count=10, max_threads_per_multi_processor=1536,
        shared_memory_per_multiprocessor=102_400,
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    kernel, device = Kernel(), torch.device("cuda")

    def programs(dtype, count, warps=4, width=96):
        arguments = (torch.empty(0, dtype=dtype), None, torch.float32, count, 1e-6)
        return occupancy.programs_at_once(kernel, arguments, {"WIDTH": width}, warps, device, 255)

    # 120 registers are 3840 a warp: 17 warps, of which 4 programs of 4 are whole
    assert programs(torch.bfloat16, 7) == programs(torch.bfloat16, 1 << 20) == 40
    like = (torch.bfloat16, None, torch.float32, 16, 1e-6)
    assert compiled == [(like, (1,), 4, {"WIDTH": 96})]
    assert programs(torch.float32, 7) == 40
    assert programs(torch.float32, 7, width=97) == 40
    assert programs(torch.float32, 7, warps=1) == 170
    assert len(compiled) == 4


def test_nothing_is_compiled_without_a_gpu(occupancy):
    """On "meta" with the registers of the table, an H100's; unknown kernels get the fewest."""
    meta = torch.device("meta")
    for registers, programs in (
        (occupancy.assumed_registers("add_layer_norm_backward", 768), 4 * 132),
        (occupancy.assumed_registers("add_layer_norm_backward", 771), 2 * 132),
    ):
        assert occupancy.programs_at_once(None, (), {}, 4, meta, registers) == programs
    assert occupancy.programs_at_once(None, (), {}, 4, meta, 168, per_multiprocessor=5) == 5 * 132


@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 1000, 20_480])
@pytest.mark.parametrize("most", [1, 4, 396])
def test_runs_of_rows_cover_all_and_no_more(occupancy, rows, most):
    module = import_module("videomae_fast.kernels.add_layer_norm")
    for cut in (module.forward_tiling(768, 2), module.backward_tiling(768, 2, 3, scaled=False)):
        programs, run = module.row_runs(rows, cut, most)
        assert 1 <= programs <= most
        # Whole tiles where a program has one only; no run is longer than rows alone ask for
        assert run == -(-rows // min(most, -(-rows // cut.rows)))
        assert (programs - 1) * run < rows <= programs * run
