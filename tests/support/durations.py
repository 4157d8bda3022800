"""How long tests take, by a record: which of them are slow, and which files come first.

    make test-all PYTEST_ARGS=--record-durations

writes the record, of the tests that ran; what did not run keeps its seconds. Those of a test itself
count: fixtures that several tests share are made for one of them, whichever comes first.
"""

from __future__ import annotations

import datetime
import json
import os
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
RECORD: Final = ROOT / "tests" / "durations.json"
SLOW: Final = 1.0
"""Seconds of the record above which a test is left out by `make test`."""
LEAST: Final = 0.6
"""What takes less is not recorded, and taken for UNKNOWN."""
UNKNOWN: Final = 0.1


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
        return self.seconds.get(file, {}).get(test, UNKNOWN)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None]:
        """Marks what is slow. Of what options leave, files that take longest come first: a file's
        tests run in one process, and none is to end with a long one while others wait."""
        for item in items:
            if self.of(item.nodeid) > SLOW:
                item.add_marker(pytest.mark.slow)
        yield
        files: defaultdict[Path, float] = defaultdict(float)
        for item in items:
            files[item.path] += self.of(item.nodeid)
        items.sort(key=lambda item: (-files[item.path], item.path))

    def write(self, ran: dict[str, float], machine: str) -> None:
        """With the seconds of tests that ran, by node id.

        Args:
            ran: every test of the run.
            machine: processor and processes.
        """
        for name, seconds in ran.items():
            file, _, test = name.partition("::")
            self.seconds.setdefault(file, {}).pop(test, None)
            if seconds >= LEAST:
                self.seconds[file][test] = round(seconds, 1)
        record = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": machine,
            "seconds": {
                file: dict(sorted(tests.items()))
                for file, tests in sorted(self.seconds.items())
                if tests and (ROOT / file).exists()
            },
        }
        text = json.dumps(record, indent=1, ensure_ascii=False)
        self._path.write_text(text + "\n", encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        ran = {
            report.nodeid: report.duration
            for reports in terminalreporter.stats.values()
            for report in reports
            if getattr(report, "when", "") == "call" and not report.skipped
        }
        if config.getoption("--record-durations"):
            self.write(ran, _machine(config))
        long = [n for n, s in ran.items() if s > 3 * SLOW and self.of(n) == UNKNOWN]
        for name in long:
            told = f"took {ran[name]:.1f} s and has no record: see tests/support/durations.py"
            terminalreporter.write_line(f"{name} {told}")


def _machine(config: pytest.Config) -> str:
    from benchmarks.common.processor import processor, processor_name

    processes = getattr(config.option, "numprocesses", None) or 1
    found = processor()
    name = processor_name({"cpu": found["name"], "processor": found})
    return f"{name}, {os.cpu_count()} cores, {processes} processes of tests"
