"""Which processes are on a node together, whatever started them; and what can't be said of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch.distributed as dist

from tests.support.accidents import TARGET, words_of
from tests.support.launches import Host
from tests.support.runs import losses, options
from videomae_fast.data import beside
from videomae_fast.errors import UsageError, VideoMAEFastError
from videomae_fast.recipes import PretrainConfig
from videomae_fast.tasks.pretraining import dataset_of
from videomae_fast.training.parallel import world
from videomae_fast.training.parallel.nodes import Seat, processes_per_node
from videomae_fast.training.parallel.world import World

TO_AND_FRO = "shard node: ranks are not numbered node by node"


def seats(hosts: str, told: str = "") -> list[Seat]:
    """A process per letter of ``hosts``; told: a digit for each, "-" for nothing."""
    numbers = told or "-" * len(hosts)
    return [
        Seat(host, "", None if n == "-" else int(n)) for host, n in zip(hosts, numbers, strict=True)
    ]


@pytest.mark.parametrize(
    ("hosts", "told", "number"),
    [
        ("aabb", "2222", 2),
        ("aaaa", "2222", 2),  # two nodes of a launcher on one machine
        ("aaaa", "4444", 4),
        ("abc", "111", 1),
        ("aabb", "", 2),
        ("aaa", "", 3),
        ("abc", "", 1),
        ("aabb", "22--", 2),  # what some say is known of the others' machines
    ],
)
def test_they_are_counted(hosts: str, told: str, number: int) -> None:
    assert processes_per_node(seats(hosts, told)) == number


@pytest.mark.parametrize(
    ("hosts", "told", "why"),
    [
        ("aab", "221", r"different numbers of processes \(2 on a, 1 on b\)"),
        ("aab", "", r"different numbers of processes \(2 on a, 1 on b\)"),
        ("abab", "", rf"{TO_AND_FRO} \(0 on a, 1 on b, 2 on a, 3 on b\)"),
        ("abab", "2222", rf"{TO_AND_FRO} \(0 on a among 2, 1 on b among 2, "),
        ("aabb", "4444", TO_AND_FRO),  # as one says who sets it for all
        ("aa", "44", TO_AND_FRO),
        ("aaaa", "2223", TO_AND_FRO),
        ("abababababab", "", r"7 on b, \.\.\.\)"),
    ],
)
def test_what_can_not_be_parts_of_nodes(hosts: str, told: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        processes_per_node(seats(hosts, told))
    assert "use shard all, none, or a number of processes" in str(caught.value)


def test_machines_of_one_name_are_told_apart() -> None:
    both = [Seat("localhost", boot, None) for boot in ("one", "one", "other", "other")]
    assert processes_per_node(both) == 2


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE 2 and no RANK: start processes with torchrun"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "WORLD_SIZE 2 and RANK 2: .*its number from 0 to 1"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE 'two', which is no number from 1 on"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK '-1', which is no number from 0 on"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE '0', which"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "can't join the 2 processes of the run: .*MASTER_ADDR"),
    ],
)
def test_a_launcher_that_says_what_can_not_be(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], why: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(VideoMAEFastError, match=why):
        World.start("cpu")


@pytest.mark.parametrize(("told", "here"), [(None, 3), (2, 3), (3, 3)])
def test_what_is_a_machines_is_shared_by_its_processes(
    tiny: Callable[..., PretrainConfig], monkeypatch: pytest.MonkeyPatch, told: int | None,
    here: int,
) -> None:  # fmt: skip
    """By those that run there, whatever the launcher says of nodes; 4 processes on two machines."""
    own = Seat.here(told)
    others = [own, own, own, Seat("another", "boot", told)]

    def gather(seats: list[Seat], seat: Seat, group: object) -> None:
        assert seat == own
        seats[:] = others

    for name, value in {"WORLD_SIZE": 4, "RANK": 1}.items():
        monkeypatch.setenv(name, str(value))
    if told is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(told))
    for name in ("init_process_group", "new_group"):
        monkeypatch.setattr(dist, name, lambda *_, **__: None)
    monkeypatch.setattr(dist, "all_gather_object", gather)
    monkeypatch.setattr(world, "rendezvous", lambda _: iter([(None, 1, 4)]))
    for name in ("name_of_start", "PrefixStore"):
        monkeypatch.setattr(world, name, lambda *_: None)
    monkeypatch.setattr(world, "Watch", lambda *_: None)
    config = tiny(prefetch_gb=1.2)
    try:
        World.start("cpu")
        assert dataset_of(config).prefetch_bytes == 1.2e9 / here
    finally:
        beside.tell(None)
    assert dataset_of(config).prefetch_bytes == 1.2e9 / (told or 1)


def test_runs_on_nodes_as_they_are(host: Host, tiny_list: Path, tmp_path: Path) -> None:
    """Two and one process: no run. Two, of which nobody says that they are a node's: one copy."""
    words = options(data=tiny_list, epochs=2, shard="node", reshard="yes")
    output = tmp_path / "unequal"
    given = words_of(["pretrain", *words, "--output", str(output)])
    runs = host.meeting([2, 1], TARGET, given, tmp_path / "unequal.log")
    for run in runs:
        run.finish(1)
    said = runs[0].said()
    assert "error: shard node: nodes have different numbers of processes (2 on " in said
    assert not output.exists()

    output, log = tmp_path / "untold", tmp_path / "untold.log"
    given = words_of(["pretrain", *words, "--output", str(output)], without="LOCAL_WORLD_SIZE")
    said = host.start(2, TARGET, given, log).finish()
    assert "states sharded over 2 processes, copies: 1" in said
    assert len(losses(output)) == 4
