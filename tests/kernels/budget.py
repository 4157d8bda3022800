"""What compiled kernels may take: recorded for each version of Triton, and allowed to fall only.

Beside each count stands the key of the binary that it was read from. Where that is the launch's
still, so are its counts, and nothing need be compiled to know them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.common.sass import MULTIPROCESSORS

FILE = Path(__file__).with_name("aot_budget.json")
REGISTER_SLACK = 8  # the assembler allots them in eights

Recorded = dict[str, dict[str, dict[str, Any]]]
"""By name and architecture: {"registers": 64, "barriers": 0, "per_byte": 5.91}; "stack" of what
is known to spill; "resident" and "key", which are compared with nothing."""


@dataclass(frozen=True)
class Usage:
    """What a compiled kernel takes.

    Attributes:
        registers: per thread.
        stack: bytes per thread, which is where spills go.
        shared: bytes of shared memory of a program.
        resident: programs that a multiprocessor holds at once.
        barriers: in the loop that has most; None where the machine code was not read.
        per_byte: instructions of a thread for each byte of global memory that it moves; or None.
        error: why there is no binary.
        key: of the binary; empty where it is not known.
    """

    registers: int = 0
    stack: int = 0
    shared: int = 0
    resident: int = 0
    barriers: int | None = None
    per_byte: float | None = None
    error: str | None = None
    key: str = ""

    def with_code(self, barriers: int, per_byte: float) -> Usage:
        return replace(self, barriers=barriers, per_byte=round(per_byte, 2))

    def problems(self, name: str, arch: int) -> list[str]:
        """What is wrong with it whatever was recorded."""
        label = f"{name} sm_{arch}"
        if self.error is not None:
            return [f"{label}: does not compile: {self.error}"]
        found = []
        if self.registers < 8:
            found.append(f"{label}: {self.registers} registers: there is nothing in it")
        most = MULTIPROCESSORS[arch].most_shared
        if self.shared > most:
            found.append(f"{label}: {self.shared} bytes of shared memory of {most}")
        return found

    def counts(self) -> dict[str, float]:
        """What is recorded and may fall only."""
        found: dict[str, float | None] = {
            "registers": self.registers,
            "stack": self.stack or None,
            "barriers": self.barriers,
            "per_byte": self.per_byte,
        }
        return {name: value for name, value in found.items() if value is not None}

    def recorded(self) -> dict[str, Any]:
        """All that is recorded."""
        known = {"resident": self.resident, "key": self.key} if self.key else {}
        return {**self.counts(), **known}


Results = Iterable[tuple[str, int, Usage]]
"""(name, architecture, usage) of each binary."""


class Budget:
    """The recorded counts of one version of Triton.

    Args:
        version: of Triton.
        binaries: counts by name and architecture.
        waves: kernels known to fill a GPU more than once and less than four times, and how often.
        varied: keys of launches, by name, whose variants are known to compile.
    """

    def __init__(
        self,
        version: str,
        binaries: Recorded,
        waves: Mapping[str, float],
        varied: Mapping[str, str] | None = None,
    ) -> None:
        self.version, self.binaries, self.waves = version, binaries, dict(waves)
        self.varied = dict(varied or {})

    @classmethod
    def read(cls) -> Budget:
        """That of the Triton that is installed; empty where it has none."""
        import triton

        version = str(triton.__version__)
        found = _all().get(version, {"binaries": {}, "waves": {}})
        return cls(version, found["binaries"], found["waves"], found.get("varied"))

    def known(self, name: str, arch: int, key: str) -> Usage | None:
        """What a launch takes, if its binary is the one that was recorded."""
        found = dict(self.binaries.get(name, {}).get(str(arch), {}))
        return Usage(**found) if found.get("key") == key else None

    def exceeded(self, results: Results, waves: Mapping[str, float] | None = None) -> list[str]:
        """What has grown, has no record, or has one that nothing is left of.

        Args:
            results: of some binaries; of all where `waves` is given.
            waves: partial waves found.
        """
        results = list(results)
        wrong = []
        for name, arch, usage in results:
            if usage.error is not None:
                continue  # said already
            label = f"{name} sm_{arch}"
            recorded = self.binaries.get(name, {}).get(str(arch))
            if recorded is None:
                wrong.append(f"{label}: no recorded budget; run tests/kernels/aot.py --record")
                continue
            for what, value in usage.counts().items():
                slack = REGISTER_SLACK if what == "registers" else 0
                before = recorded.get(what, 0)
                if value > before + slack:
                    wrong.append(f"{label}: {_WORDS[what]}: {value}, recorded {before}")
        if waves is None:
            return wrong
        for name in sorted(set(self.binaries) - {name for name, _, _ in results}):
            wrong.append(f"{name}: has a budget and is launched no more")
        for name, value in waves.items():
            if value > self.waves.get(name, 1):
                known = f", recorded {self.waves[name]}" if name in self.waves else ""
                wrong.append(f"{name}: fills a GPU {value} times{known}: at most 1, or 4 and more")
        for name in sorted(set(self.waves) - set(waves)):
            wrong.append(f"{name}: a partial wave is recorded, and is one no more")
        return wrong

    def record(
        self,
        results: Results,
        waves: Mapping[str, float],
        varied: Mapping[str, str] | None = None,
        *,
        allow_growth: bool,
    ) -> list[str]:
        """Writes all, unless something has grown that may not; what that is."""
        results = list(results)
        if not allow_growth:
            known = [each for each in results if str(each[1]) in self.binaries.get(each[0], {})]
            grown = self.exceeded(known) + [
                f"{name} sm_{arch}: spills: {usage.stack} bytes of stack per thread"
                for name, arch, usage in results
                if usage.stack and (name, arch, usage) not in known
            ]
            if self.waves:
                more = {n: v for n, v in waves.items() if v > self.waves.get(n, 1)}
                grown += [f"{name}: fills a GPU {value} times" for name, value in more.items()]
            if grown:
                return [*grown, "nothing was recorded: --allow-growth does"]
        binaries: Recorded = {}
        for name, arch, usage in results:
            if usage.error is None:
                sound = usage if not usage.problems(name, arch) else replace(usage, key="")
                binaries.setdefault(name, {})[str(arch)] = sound.recorded()
        everything = _all()
        parts = {"binaries": binaries, "waves": dict(waves), "varied": dict(varied or {})}
        everything[self.version] = parts
        _write(everything)
        return []


_WORDS = {
    "registers": "registers",
    "stack": "spills, bytes of stack per thread",
    "barriers": "barriers in a loop",
    "per_byte": "instructions per byte moved",
}


def _all() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text(encoding="utf-8"))) if FILE.exists() else {}


def _write(everything: Mapping[str, Any]) -> None:
    """A line for each name, so that changes can be read."""
    versions = []
    for version, parts in sorted(everything.items()):
        inner = []
        for part, entries in sorted(parts.items()):
            rows = [f"   {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(entries.items())]
            body = "\n" + ",\n".join(rows) + "\n  " if rows else ""
            inner.append(f"  {json.dumps(part)}: {{{body}}}")
        versions.append(f" {json.dumps(version)}: {{\n" + ",\n".join(inner) + "\n }")
    FILE.write_text("{\n" + ",\n".join(versions) + "\n}\n", encoding="utf-8")
