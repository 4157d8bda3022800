"""How long tests take, by a record: which of them are slow, and which files come first.

    make test-all PYTEST_ARGS=--record-durations

writes the record, of the tests that ran; what did not run keeps its seconds. What waits for
something slow that several tests share, whichever of them comes first, has the mark of its own.

`--slow` says which of the slow ones run: all, none, or, as 2/5, the second of five parts that take
about as long as one another. A file's slow tests are in one part, as they share what they wait for.
"""

from __future__ import annotations

import datetime
import json
import os
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
RECORD: Final = ROOT / "tests" / "durations.json"
SLOW: Final = 0.5
"""Seconds from which a test is recorded, and left out by `make test`."""
QUICK: Final = 0.1
"""Seconds that others are taken to need."""


class Durations:
    """Seconds of tests, of the file `path`, and the plugin of a run that writes it where asked.

    Attributes:
        seconds: by file, from the project's folder, and by name with parameters.
    """

    def __init__(self, path: Path = RECORD) -> None:
        self._path = path
        found = json.loads(path.read_text()) if path.exists() else {"seconds": {}}
        self.seconds: dict[str, dict[str, float]] = found["seconds"]

    def of(self, name: str) -> float:
        """Of a test by its node id."""
        file, _, test = name.partition("::")
        return self.seconds.get(file, {}).get(test, QUICK)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> Generator[None]:
        """Marks what is slow, and leaves out what `--slow` does not name. Of what options leave,
        files that take longest come first: a file's tests run in one process, and none is to end
        with a long one while others wait."""
        for item in items:
            if self.of(item.nodeid) >= SLOW:
                item.add_marker(pytest.mark.slow)
        if left_out := self._left_out(items, config.getoption("--slow")):
            config.hook.pytest_deselected(items=left_out)
            gone = set(left_out)
            items[:] = [item for item in items if item not in gone]
        yield
        files: defaultdict[Path, float] = defaultdict(float)
        for item in items:
            files[item.path] += self.of(item.nodeid)
        items.sort(key=lambda item: (-files[item.path], item.path))

    def _left_out(self, items: Sequence[pytest.Item], which: str) -> list[pytest.Item]:
        """The slow tests that don't run."""
        if which == "all":
            return []
        slow: defaultdict[Path, list[pytest.Item]] = defaultdict(list)
        for item in items:
            if item.get_closest_marker("slow"):
                slow[item.path].append(item)
        if which == "none":
            return [item for of_file in slow.values() for item in of_file]
        number, parts = _part(which)
        seconds = {path: sum(self.of(i.nodeid) for i in own) for path, own in slow.items()}
        filled, found = [0.0] * parts, []
        for path in sorted(seconds, key=lambda path: (-seconds[path], path)):
            least = filled.index(min(filled))
            filled[least] += seconds[path]
            if least != number - 1:
                found += slow[path]
        return found

    def write(self, ran: Mapping[str, float], machine: str) -> None:
        """With the seconds of tests that ran, by node id.

        Args:
            ran: every test of the run.
            machine: processor and processes.
        """
        for name, seconds in ran.items():
            file, _, test = name.partition("::")
            self.seconds.setdefault(file, {}).pop(test, None)
            if seconds >= SLOW:
                self.seconds[file][test] = round(seconds, 1)
        record = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": machine,
            "seconds": {
                file: {test: kept[test] for test in sorted(kept)}
                for file, tests in sorted(self.seconds.items())
                if (kept := {t: s for t, s in tests.items() if is_there(file, t)})
            },
        }
        text = json.dumps(record, indent=1, ensure_ascii=False)
        self._path.write_text(text + "\n", encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        reports = [
            report
            for several in terminalreporter.stats.values()
            for report in several
            if getattr(report, "when", None) in ("setup", "call") and not report.skipped
        ]
        if config.getoption("--record-durations"):
            ran: defaultdict[str, float] = defaultdict(float)
            for report in reports:
                ran[report.nodeid] += report.duration
            self.write(ran, _machine(config))
        for report in reports:
            if report.duration > 10 * SLOW and "slow" not in report.keywords:
                told = f"{report.nodeid}, its {report.when}: {report.duration:.1f} s"
                terminalreporter.write_line(f"not slow? {told} (see tests/support/durations.py)")


def _part(word: str) -> tuple[int, int]:
    """Which of how many."""
    number, _, parts = word.partition("/")
    if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise pytest.UsageError(f"--slow {word}: all, none, or a part of them, as 2/5")
    return int(number), int(parts)


def is_there(file: str, test: str) -> bool:
    """Whether a file has a test, by its name with parameters."""
    function = test.split("[")[0].split("::")[-1]
    path = ROOT / file
    return path.exists() and f"def {function}(" in path.read_text(encoding="utf-8")


def _machine(config: pytest.Config) -> str:
    from benchmarks.common.processor import processor, processor_name

    processes = getattr(config.option, "numprocesses", None) or 1
    found = processor()
    name = processor_name({"cpu": found["name"], "processor": found})
    return f"{name}, {os.cpu_count()} cores, {processes} processes of tests"
