"""The record of how long tests take: what it decides, and that it is of tests that there are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.durations import QUICK, RECORD, ROOT, SLOW, Durations, is_there

pytest_plugins = ["pytester"]


def test_it_is_of_tests_that_there_are() -> None:
    gone = [
        f"{file}::{test}"
        for file, tests in Durations().seconds.items()
        for test in tests
        if not is_there(file, test)
    ]
    assert not gone, f"in {RECORD.name}; record the durations of these files again"


def test_what_ran_is_written_and_the_rest_is_kept(tmp_path: Path) -> None:
    path, file = tmp_path / "durations.json", "tests/test_durations.py"
    names = [name for name in globals() if name.startswith("test_")]  # which are to be there
    a, b, c = (f"{file}::{name}" for name in names[:3])
    Durations(path).write({a: 7.04, b: SLOW, c: 0.1}, "one")
    assert Durations(path).of(a) == 7.0
    assert Durations(path).of(c) == QUICK
    gone = {"tests/gone.py::test_d": 9, f"{file}::test_gone": 9}
    Durations(path).write({a: 0.2, **gone}, "another")
    assert Durations(path).seconds == {file: {names[1]: SLOW}}
    assert json.loads(path.read_text())["machine"] == "another"


@pytest.fixture
def collected(pytester: pytest.Pytester) -> Callable[..., list[str]]:
    """What is left of a few tests by options, in its order."""
    record = pytester.path / "durations.json"
    seconds = {
        "test_a.py": {"test_slow": SLOW, "test_other": SLOW},
        "test_b.py": {"test_two[x]": SLOW - 0.1},
        "test_c.py": {"test_long": 3 * SLOW},
        "test_d.py": {"test_longer": 3 * SLOW + 0.1},
    }
    record.write_text(json.dumps({"seconds": seconds}))
    pytester.makeini("[pytest]\nmarkers = slow")
    pytester.makepyfile(
        test_a="def test_slow(): pass\ndef test_one(): pass\ndef test_other(): pass",
        test_b="import pytest\n@pytest.mark.parametrize('n', ['x'])\ndef test_two(n): pass",
        test_c="def test_long(): pass",
        test_d="def test_longer(): pass",
    )
    pytester.makeconftest(
        f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        from tests.support.durations import Durations
        def pytest_addoption(parser):
            parser.addoption("--record-durations", action="store_true")
            parser.addoption("--slow", default="all")
        def pytest_configure(config):
            config.pluginmanager.register(Durations(Path({str(record)!r})))
        """
    )

    def left(*options: str) -> list[str]:
        said = pytester.runpytest_subprocess(*options, "--collect-only", "-q")
        return [
            line for line in said.stdout.lines + said.stderr.lines if "::" in line or "ERR" in line
        ]

    return left


QUICK_ONES = ["test_b.py::test_two[x]", "test_a.py::test_one"]


@pytest.mark.parametrize("options", [("-m", "not slow"), ("--slow", "none")])
def test_the_slow_are_left_out_and_long_files_come_first(
    collected: Callable[..., list[str]], options: tuple[str, ...]
) -> None:
    """In an order that the alphabet does not give."""
    assert collected(*options) == QUICK_ONES


def test_a_part_of_the_slow_has_whole_files(collected: Callable[..., list[str]]) -> None:
    """The longest file, and the two next ones together, which take as long."""
    first, second = (collected("--slow", f"{number}/2") for number in (1, 2))
    slow_of_a = ["test_a.py::test_slow", "test_a.py::test_one", "test_a.py::test_other"]
    assert first == ["test_d.py::test_longer", *QUICK_ONES]
    assert second == ["test_c.py::test_long", *slow_of_a, QUICK_ONES[0]]
    assert sorted({*first, *second}) == sorted(collected())
    for wrong in ("0/2", "3/2", "2", "some"):
        said = collected("--slow", wrong)[-1]
        assert said == f"ERROR: --slow {wrong}: all, none, or a part of them, as 2/5"
