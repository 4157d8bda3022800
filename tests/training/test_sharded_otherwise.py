"""Sharded training by numbers that divide nothing, on two nodes, compiled, in few bits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.scale.layouts import reference
from tests.support.launches import Host
from tests.support.sharded import FEW, SOME, Ran, check_equal, runs

pytestmark = pytest.mark.slow  # all of them wait for the same runs


@pytest.fixture(scope="module")
def ran(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return runs(host, tmp_path_factory.mktemp("sharded"), "some_layout")


@pytest.mark.parametrize(("processes", "name"), [(n, name) for n in (3, 8) for name in SOME[n]])
def test_some_layouts_train_as_one_process(ran: Ran, processes: int, name: str) -> None:
    found = ran(processes)[name]
    assert len(found["steps"]) == FEW
    check_equal(found, ran(1)[reference(name)])


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
