"""Every op of a training step, by every backend and library: right first, then timed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.ops.conftest import in_turns


@pytest.mark.benchmark(timer=in_turns)
def test_op(op: str, where: str, contender: str, timed: Callable[[str, str, str], None]) -> None:
    timed(op, where, contender)
