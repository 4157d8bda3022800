"""Sharded training against one process, in every layout: losses, norms, weights, bytes moved."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scale.cluster import Layout as Planned
from benchmarks.scale.cluster import Model, moved, states
from benchmarks.scale.layouts import RATE, config_of, laid_out, reference, variants
from tests.support.launches import Host
from tests.support.sharded import FEW, MORE, SOME, STEPS
from videomae_fast.models.transformer import Block
from videomae_fast.tasks.pretraining import build_model

Ran = Callable[[int], dict[str, Any]]


@pytest.fixture(scope="module")
def ran(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """What variants gave in a number of processes; judged by what they wrote, as gloo may abort at
    the interpreter's end (pytorch issue 179291)."""
    folder = tmp_path_factory.mktemp("sharded")
    alone = str(folder / "alone.pt")

    @cache
    def results(processes: int) -> dict[str, Any]:
        if processes > 1:
            results(1)
        path, log = folder / f"{processes}.json", folder / f"{processes}.log"
        target = "tests.support.sharded:" + ("some" if processes in SOME else "every") + "_layout"
        nodes = [4, 4] if processes == 8 else [processes]
        runs = host.meeting(nodes, target, [str(path), alone], log)
        for run in runs:
            run.finish(None)
        assert path.exists(), log.read_text()[-4000:]
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    return results


@pytest.mark.parametrize(
    ("processes", "name"),
    [(n, name) for n in (1, 2, 3, 4, 8) for name in (SOME[n] if n in SOME else variants(n))],
)
def test_every_layout_trains_as_one_process(ran: Ran, processes: int, name: str) -> None:
    """Random decoder masks, clips that can't be read, a process without one that can."""
    found, expected = ran(processes)[name], ran(1)[reference(name)]
    steps = found["steps"]
    assert len(steps) == (FEW if name in MORE or processes in SOME else STEPS)
    for (loss, norm), (loss_of_one, norm_of_one) in zip(steps, expected["steps"], strict=False):
        assert loss == pytest.approx(loss_of_one, rel=1e-6)
        assert norm == pytest.approx(norm_of_one, rel=1e-5)
    # Adam divides gradients near 0 by gradients near 0
    assert found["weights"] <= 1e-2 * RATE
    assert found["moments"] <= 1e-4
    if len(steps) == len(expected["steps"]):
        assert found["evaluated"] == pytest.approx(expected["evaluated"], rel=1e-6)


def test_a_node_is_what_the_launcher_says(ran: Ran) -> None:
    """Two nodes of four: two copies, of four parts each; and four of two."""
    assert [one["parts"] for one in ran(8).values()] == [4, 2]


@pytest.mark.parametrize(("name", "near"), [("compiled", 1e-6), ("bf16", 1e-3), ("fp8", 1e-3)])
def test_sharded_blocks_that_are_compiled_or_in_bf16_or_fp8(
    ran: Ran, name: str, near: float
) -> None:
    """Compiled with what is made again told by op; beside eager steps in fp32 of one process, in
    fp8 where fp8 is, where a bit of fp32 may be one of e4m3."""
    found, expected = ran(2)[name], ran(1)[name]
    for (loss, norm), (loss_of_one, norm_of_one) in zip(found, expected, strict=True):
        assert loss == pytest.approx(loss_of_one, rel=near)
        assert norm == pytest.approx(norm_of_one, rel=30 * near)
    if name == "bf16":
        assert found != expected, "it was fp32"


def test_the_comparison_sees_a_wrong_divisor(ran: Ran) -> None:
    for processes in (2, 4):
        wrong = ran(processes)["wrong divisor"]
        right = ran(1)["ddp; dual; 1"]["steps"]
        assert wrong[0][1] != pytest.approx(right[0][1], rel=0.1)


def test_blocks_that_let_parameters_out_do_not_train(ran: Ran, host: Host, tmp_path: Path) -> None:
    """An error, a crash, or other numbers: never the right ones, or the copies are for nothing."""
    path = tmp_path / "found.json"
    words = [str(path), "no clone"]
    run = host.start(2, "tests.support.sharded:mutated", words, tmp_path / "log")
    run.finish(None)
    right = ran(1)["ddp; dual; 1"]["steps"][:3]
    if not path.exists():
        assert run.poll() != 0
        return
    found = json.loads(path.read_text())["no clone"]
    if not isinstance(found, str):
        assert [step[0] for step in found] != pytest.approx([s[0] for s in right], rel=1e-3)


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
