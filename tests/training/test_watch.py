"""Who is named when a run stands still."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch.distributed as dist

from videomae_fast.training.parallel.watch import Watch, Whereabouts, blame

LIMIT = 1.5


def at(
    step: int, beat: int, waits: bool = True, doing: str = "agreeing", collective: str = ""
) -> Whereabouts:
    return Whereabouts("node", 100 + step, step, doing, waits, 1.0, beat, collective)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ([at(7, 9), at(6, 5)], "rank 1 is silent (stopped, or its machine can't be reached), and "
         "was last in step 6, agreeing (process 106 on node)"),
        ([at(7, 9), at(7, 9, waits=False, doing="waiting for data")],
         "rank 1 waits for nobody, and is in step 7, waiting for data (process 107 on node)"),
        ([at(7, 9), at(6, 9)], "rank 1 is behind, in step 6, agreeing (process 106 on node)"),
        ([at(7, 9, collective="barrier"), at(7, 9, collective="all_reduce")],
         "rank 0 waits in step 7, agreeing: barrier (process 107 on node); "
         "rank 1 waits in step 7, agreeing: all_reduce (process 107 on node)"),
        ([at(7, 9), at(7, 9)], "all wait in the same step, and nobody is silent: see their stacks"),
    ],
)  # fmt: skip
def test_whom_a_wait_is_for(now: list[Whereabouts], said: str) -> None:
    before = [at(7, 5), at(6, 5)]
    assert blame(before, now) == said


def test_of_many_some_are_named() -> None:
    every = [at(3, 5)] * 9
    assert blame(every, every).endswith("; and 5 more")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Watch, Watch]]:
    store = dist.HashStore()  # type: ignore[attr-defined]
    both = Watch(store, 0, 2), Watch(store, 1, 2)
    with ExitStack() as entered:
        for one in both:
            entered.enter_context(one.on(tmp_path, LIMIT, 100.0))
        yield both


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_process_that_goes_on_alone_is_named_and_tells_its_stack(
    pair: tuple[Watch, Watch], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = pair
    one.step = other.step = 4
    with other.doing("waiting for data", waits=False):
        with one.doing("agreeing", waits=True):
            time.sleep(LIMIT)
            assert one.told is None, "before the first step is done there is time"
            one.begun()
            wait_until(lambda: one.told)
        said = one.told
        assert said is not None
        assert said.startswith("rank 1 waits for nobody, and is in step 4, waiting for data")
        wait_until((tmp_path / "rank-1.txt").exists)
    wait_until(lambda: one.told is None)
    printed = capsys.readouterr().err
    assert "in step 4, agreeing (process " in printed
    assert "rank 0 goes on" in printed
    assert other.told is None
    wait_until(lambda: "most recent call first" in (tmp_path / "rank-1.txt").read_text())
    asked, own = ((tmp_path / f"rank-{rank}.txt").read_text() for rank in (1, 0))
    assert "another process waits for too long" in asked
    assert said in own
    assert "rank 1: step 4, waiting for data" in own


def test_what_was_waited_for_in_vain_stays_known(pair: tuple[Watch, Watch]) -> None:
    one, _ = pair
    one.begun()

    def in_vain() -> None:
        with one.doing("agreeing", waits=True):
            wait_until(lambda: one.told)
            raise RuntimeError("timed out")

    with pytest.raises(RuntimeError):
        in_vain()
    time.sleep(LIMIT / 5)
    assert one.told is not None
