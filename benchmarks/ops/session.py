"""One run of the ops' benchmark: its settings, what it has measured, and its record."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from benchmarks.common.command import results_folder
from benchmarks.common.record import environment, stamp, write
from benchmarks.common.workload import TINY, Workload
from benchmarks.measure.timing import copy_bandwidth
from benchmarks.ops.cases import op_cases
from benchmarks.ops.op_case import OpCase
from benchmarks.ops.speed import DTYPES, contender_names, measure
from videomae_fast import MAEConfig

Row = dict[str, Any]


class OpSession:
    """Measures a case when its first contender is asked for; the record is written after each.

    Args:
        options: those of :func:`benchmarks.ops.speed.add_options`.
        command: the words of the command, for the record.

    Raises:
        ValueError: the device is not here.
    """

    def __init__(self, options: Any, command: Sequence[str]) -> None:
        self.device = torch.device(options.device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError("no GPU here: --device cpu")
        if options.threads:
            torch.set_num_threads(options.threads)
        self.options = options
        self.dtype = options.dtype or ("bf16" if self.device.type == "cuda" else "fp32")
        self._command = list(command)
        self._rows: dict[tuple[str, str, str], Row] = {}
        name = f"op-speed-{self.device.type}-{options.size}-{self.dtype}-{stamp()}.json"
        self.path = results_folder(options) / name

    @cached_property
    def cases(self) -> dict[tuple[str, str], OpCase]:
        """The cases by op and place."""
        config = TINY if self.options.tiny else MAEConfig.from_size(self.options.size)
        workload = Workload(config, self.options.batch, device=self.options.device)
        found = op_cases(workload, DTYPES[self.dtype])
        asked = self.options.ops
        return {(c.op, c.where): c for c in found if asked is None or c.op in asked}

    @cached_property
    def record(self) -> dict[str, Any]:
        """What :func:`benchmarks.ops.speed.table` takes."""
        options = self.options
        size = 2**12 if options.tiny else 2**30 if self.device.type == "cuda" else 2**26
        return {
            "kind": "op_speed",
            **environment(options.device, self._command),
            "workload": {"size": options.size, "batch": options.batch, "dtype": self.dtype},
            "settings": {"repeats": options.repeats, "tiny": options.tiny, "interleaved": True},
            "copy": copy_bandwidth(self.device, size, max(1, options.repeats), 3),
            "results": [],
        }

    def all_contenders(self) -> list[tuple[str, str, str]]:
        """Op, place and contender of all that there is to measure."""
        compiled = not self.options.no_compile
        return [
            (*key, name)
            for key, case in self.cases.items()
            for name in contender_names(case, compiled=compiled)
        ]

    def row(self, op: str, where: str, name: str, among: Sequence[str], *, timed: bool) -> Row:
        """What was measured of a contender, in turns with the others ``among`` which it is.

        Args:
            among: all contenders of this op and place that take part in the run.
            timed: whether to take times; what is only checked leaves no record.
        """
        if (op, where, name) not in self._rows:
            case, repeats = self.cases[op, where], self.options.repeats if timed else 0
            rows = measure(case, DTYPES[self.dtype], self.device, repeats, among)
            self._rows |= {(op, where, row["backend"]): row for row in rows}
            if timed:
                self.record["results"] += rows
                write(self.record, self.path)  # what is done stays, whatever comes
        return self._rows[op, where, name]

    def extra(self, row: Row) -> dict[str, Any]:
        """What pytest-benchmark's files say of a contender besides its times."""
        copy = 1e3 * self.record["copy"]["TB/s"]
        names = ("error", "allowed", "GB/s", "GFLOP/s")
        told = {name: row[name] for name in names if name in row}
        return {**told, "copy GB/s": copy, "share of copy": row["GB/s"] / copy}
