"""Sharded training against one process, in every layout: losses, norms, weights, bytes moved."""

from __future__ import annotations

import pytest

from benchmarks.scale.cluster import Layout as Planned
from benchmarks.scale.cluster import Model, moved, states
from benchmarks.scale.layouts import MORE, config_of, laid_out, reference, variants
from tests.support.launches import Host
from tests.support.sharded import FEW, STEPS, Ran, check_equal, runs
from videomae_fast.models.transformer import Block
from videomae_fast.tasks.pretraining import build_model

pytestmark = pytest.mark.slow  # all of them wait for the same runs


@pytest.fixture(scope="module")
def ran(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return runs(host, tmp_path_factory.mktemp("sharded"), "every_layout")


@pytest.mark.parametrize(
    ("processes", "name"), [(n, name) for n in (1, 2, 4) for name in variants(n)]
)
def test_every_layout_trains_as_one_process(ran: Ran, processes: int, name: str) -> None:
    """Random decoder masks, clips that can't be read, a process without one that can."""
    found, expected = ran(processes)[name], ran(1)[reference(name)]
    assert len(found["steps"]) == (FEW if name in MORE else STEPS)
    check_equal(found, expected)
    if len(found["steps"]) == len(expected["steps"]):
        assert found["evaluated"] == pytest.approx(expected["evaluated"], rel=1e-6)


def test_the_comparison_sees_a_wrong_divisor(ran: Ran) -> None:
    for processes in (2, 4):
        wrong = ran(processes)["wrong divisor"]
        right = ran(1)["ddp; dual; 1"]["steps"]
        assert wrong[0][1] != pytest.approx(right[0][1], rel=0.1)


@pytest.mark.parametrize("processes", [2, 4])
def test_collectives_and_bytes_are_the_planned_ones(ran: Ran, processes: int) -> None:
    """Gathers and scatters as the profiler counts them, bytes as the formulas of the plan say."""
    every = ran(processes)
    model = build_model(config_of())
    blocks = [m for m in model.modules() if isinstance(m, Block)]
    sizes = [sum(p.numel() for p in block.parameters()) for block in blocks]
    total = sum(p.numel() for p in model.parameters())
    planned = Model(total, max(sizes), sum(sizes), len(sizes), gathered=4)
    for name, options in laid_out(processes).items():
        found = every[f"collectives; {name}"]
        shard = {"all": processes, "2": 2, None: 1}[options.get("shard")]
        layout = Planned(processes, shard, options.get("reshard") == "yes")
        assert found["whole"] == total
        own = sum(found["held"]) / (16 * total)
        assert own == layout.copies, "copies of weights, gradients and moments, no byte more"
        # The mask token has one row, which the first process holds
        gathers = 2 * planned.pieces - 1 if layout.reshard else planned.pieces
        counts = found["counts"]
        if shard == 1:
            assert max(found["held"]) == states(planned, layout)
        else:
            assert max(found["held"]) <= 16 * total / shard * 1.02
            assert counts["_allgather_base_"] == gathers
            assert counts["_reduce_scatter_base_"] == planned.pieces
        assert found["sent"] == pytest.approx(moved(planned, layout), rel=0.02)


def test_a_copy_that_differs_by_a_bit_is_named(ran: Ran) -> None:
    every = ran(4)
    for name, who in (("ddp", "rank 3 on "), ("two, yes", "rank 1 on ")):
        before, after = every[f"replicas; {name}"]
        assert before == ""
        assert f"ought to be the same bits: {who}" in after
        assert "rank 3 on " in after
        assert "in encoder.blocks.1.mlp.fc1.weight" in after
        assert "rank 0" not in after
        assert ("nobody can say which" in after) == (name != "ddp")


def test_an_update_of_parts_is_the_one_of_all(ran: Ran) -> None:
    """The norm, by which nothing is clipped here, is added up in another order."""
    found = ran(2)["updates"]
    assert found["steps"] < 1e-6
    assert found["weights"] == found["moments"] == 0
