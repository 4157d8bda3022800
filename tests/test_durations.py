"""The record of how long tests take: what it decides, and that it is of tests that there are."""

from __future__ import annotations

import json
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


def test_the_slow_are_left_out_and_long_files_come_first(pytester: pytest.Pytester) -> None:
    """In an order that the alphabet does not give."""
    record = pytester.path / "durations.json"
    seconds = {"test_a.py": {"test_slow": SLOW}, "test_b.py": {"test_two[x]": SLOW - 0.1}}
    record.write_text(json.dumps({"seconds": seconds}))
    pytester.makeini("[pytest]\nmarkers = slow")
    pytester.makepyfile(
        test_a="def test_slow(): pass\ndef test_one(): pass",
        test_b="import pytest\n@pytest.mark.parametrize('n', ['x'])\ndef test_two(n): pass",
    )
    pytester.makeconftest(
        f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        from tests.support.durations import Durations
        def pytest_addoption(parser):
            parser.addoption("--record-durations", action="store_true")
        def pytest_configure(config):
            config.pluginmanager.register(Durations(Path({str(record)!r})))
        """
    )
    said = pytester.runpytest_subprocess("-m", "not slow", "--collect-only", "-q").stdout.lines
    assert [line for line in said if "::" in line] == [
        "test_b.py::test_two[x]",
        "test_a.py::test_one",
    ]
