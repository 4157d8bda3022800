"""How pytest times ops: ``pytest benchmarks/ops``, or ``python -m benchmarks ops``.

pytest-benchmark times one test after the other, so that a machine that slows down would favour the
first. Here the contenders of an op are timed in turns, when the first of them is asked for, by
events on a GPU; each test then hands the times of its contender over (:func:`timed`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.common.processor import processor
from benchmarks.ops.session import OpSession
from benchmarks.ops.speed import Caller, add_options, table

SESSION = pytest.StashKey[OpSession]()


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser.getgroup("ops", "ops of a training step").addoption)


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.hasplugin("benchmark"):
        raise pytest.UsageError(
            "ops are timed with pytest-benchmark, which is not installed: pip install "
            "pytest-benchmark (without an index: make gpu-install WHEELS=needed)"
        )
    if config.getoption("dist", "no") != "no":
        raise pytest.UsageError("several processes would disturb each other's times: leave out -n")
    if config.getoption("benchmark_cprofile"):
        raise pytest.UsageError(
            "--benchmark-cprofile would profile the handing over of times: take it away "
            "(python -m benchmarks step --profile shows where a step's time goes)"
        )
    caller = next((p for p in config.pluginmanager.get_plugins() if isinstance(p, Caller)), None)
    command = caller.command if caller else ["pytest", *map(str, config.invocation_params.args)]
    try:
        config.stash[SESSION] = OpSession(config.option, command)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    found = metafunc.config.stash[SESSION].all_contenders()
    ids = ["-".join(words).replace(", ", "-").replace(" ", "-") for words in found]
    metafunc.parametrize(("op", "where", "contender"), found, ids=ids)


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """What two runs must share to be compared; pytest-benchmark warns where it differs."""
    machine = config.stash[SESSION].record["machine"]
    machine_info |= {name: machine[name] for name in ("device", "threads")}
    machine_info["processor"] = processor()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    ops = config.stash[SESSION]
    if ops.path.exists():
        text = table(ops.record)
        ops.path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
        terminalreporter.write_line(f"\n{text}\nwritten: {ops.path}")


class _Clock:
    now = 0.0


def in_turns() -> float:
    """pytest-benchmark's timer: it stands still, but for the seconds that were measured before."""
    return _Clock.now


@pytest.fixture
def timed(request: pytest.FixtureRequest, benchmark: Any) -> Callable[[str, str, str], None]:
    """A function of op, place and contender that gives pytest-benchmark the contender's times.

    It skips what can't run here and fails what crashes or differs from the reference: that has no
    times.
    """
    ops = request.config.stash[SESSION]

    def report(op: str, where: str, contender: str) -> None:
        every = [i.callspec.params for i in request.session.items if hasattr(i, "callspec")]
        among = [p["contender"] for p in every if (p.get("op"), p.get("where")) == (op, where)]
        row = ops.row(op, where, contender, among, timed=benchmark.enabled)
        if "unavailable" in row:
            pytest.skip(row["unavailable"])
        if not row["correct"]:
            pytest.fail(row.get("failed") or _told(row), pytrace=False)
        if not benchmark.enabled:
            benchmark(lambda: None)
            return
        benchmark.group = f"{op} ({where})"
        benchmark.extra_info |= ops.extra(row)
        seconds = iter(row["times"])

        def stand_at(now: float) -> None:
            _Clock.now = now

        benchmark.pedantic(
            lambda: stand_at(next(seconds)), setup=lambda: stand_at(0.0), rounds=len(row["times"])
        )

    return report


def _told(row: dict[str, Any]) -> str:
    return (
        f"not timed: differs from the reference in fp64 by {row['error']:.1e} of its size, "
        f"{row['allowed']:.1e} is allowed"
    )
