"""A run on a number of nodes that changes: ``--nnodes 1:2``."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.accidents import Accident, words_of
from tests.support.launches import LIMIT, Host, Run, free_endpoint
from tests.support.runs import losses, options
from videomae_fast import cli


def wait_for(words: str, run: Run) -> None:
    deadline = time.monotonic() + LIMIT
    while words not in run.said():
        assert run.poll() is None, run.said()
        assert time.monotonic() < deadline, run.said()
        time.sleep(0.05)


def test_a_node_is_lost_and_one_comes(host: Host, tiny_list: Path, tmp_path: Path) -> None:
    """Two nodes; the second is killed in step 2. One goes on; in step 4 a new one is there."""
    given = ["pretrain", *options(data=tiny_list, epochs=4, shard="node", log_every=1)]
    whole, output = tmp_path / "whole", tmp_path / "run"
    assert cli.main([*given, "--output", str(whole)]) == 0

    happens = Accident("orphan", 1, 2), Accident("wait", 0, 4, life=1)
    words, endpoint = words_of([*given, "--output", str(output)], *happens), free_endpoint()
    logs = [tmp_path / f"node-{number}" for number in range(3)]
    first, _ = (
        host.node((1, 2), endpoint, number == 0, words, logs[number]) for number in range(2)
    )
    wait_for("on 1 process(es), cpu; resumed from", first)
    new = host.node((1, 2), endpoint, False, words, logs[2])
    new.finish()
    said = first.finish()
    assert "on 2 process(es), cpu; from the beginning" in said
    assert said.count("resumed from") == 2
    assert f"on 1 process(es), cpu; resumed from {output}/checkpoints/step-00000003" in said
    assert f"on 2 process(es), cpu; resumed from {output}/checkpoints/step-00000005" in said
    for expected, found in zip(losses(whole), losses(output), strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
