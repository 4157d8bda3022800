"""Of the results the newest of each size, batch and machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.common.processor import machine_name
from benchmarks.common.record import RESULTS, read
from benchmarks.report.studies import letter
from benchmarks.report.tables import Record, median, run_of
from videomae_fast.models.config import SIZES

ROOT = Path(__file__).parents[2]


class Result(NamedTuple):
    """What was measured of one size: a record, and the part of it that holds the runs."""

    path: Path
    record: Record
    part: Record

    @property
    def on_gpu(self) -> bool:
        """Whether it is of a GPU."""
        return bool(self.record["machine"]["device"] != "cpu")

    @property
    def machine(self) -> str:
        """What it was measured on, by name: two of one name are one."""
        return machine_name(self.record["machine"])

    @property
    def size(self) -> str:
        """The model's size, and the batch."""
        return f"ViT-{letter(self.part['size'])}, batch {self.part['workload']['batch']}"

    @property
    def data(self) -> str:
        """A link to the record."""
        return data_link(self.path)

    @property
    def where(self) -> str:
        """Size, batch and machine, with a link to the data."""
        return f"{self.size}, {self.machine} ({self.data})"

    def speedup(self, masking: str) -> float | None:
        """How many times ours is as fast as the official computation; None: not measured."""
        slow, fast = (run_of(self.part, name, masking) for name in ("official", "ours"))
        return None if slow is None or fast is None else median(slow) / median(fast)


def every(kind: str, folder: Path = RESULTS) -> Iterator[Result]:
    """The results of a kind, the oldest first; of those with tiny shapes none."""
    paths = folder.glob(f"{kind}-*.json")
    for path in sorted(paths, key=lambda path: path.stem[-len("20260101-000000") :]):
        record = read(path)
        if record["settings"].get("tiny"):
            continue
        alone = {**record, "size": record["workload"]["size"]} if "workload" in record else None
        for part in record["parts"] if alone is None else [alone]:
            yield Result(path, record, part)


def newest(kind: str, folder: Path = RESULTS) -> list[Result]:
    """The newest result of each size, batch and machine; small sizes first.

    Runs with tiny shapes are none. A record from before family and model of the processor were
    recorded gives way to any newer one of a processor of the same name.

    Args:
        kind: how the files' names begin.
        folder: of the records.
    """
    found: dict[tuple[str, ...], Result] = {}
    for result in every(kind, folder):
        machine, part = result.record["machine"], result.part
        alike = (str(part["workload"]["batch"]), part["size"])
        if not result.on_gpu:
            unnamed = f"{machine['cpu']}, {machine['threads']} threads"
            found.pop((unnamed, *alike), None)
        found[result.machine, *alike] = result
    return sorted(found.values(), key=lambda result: SIZES.index(result.part["size"]))


def data_link(path: Path) -> str:
    """A link to a record, from the README."""
    return f"[data]({path.relative_to(ROOT)})"
