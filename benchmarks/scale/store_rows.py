"""What the rows of a large store cost a process: its start, its memory, the draws of a step.

``python -m benchmarks stores`` starts this for each size; it prints JSON. No clip is read.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from videomae_fast.data import ClipDataset, Source
from videomae_fast.data.store.base import Row
from videomae_fast.data.store.head import Part, Stored, write_head
from videomae_fast.data.store.index import FILES, ROW, IndexBuilder

REAL: Final = 10**8
"""Rows from which on an index is a file of holes: as long, but not on the disk; no row is looked at
then, since a hole is read otherwise."""

VIDEOS, STEPS = 2048, 21
_CHUNK: Final = 10**6


def write_rows(folder: Path, rows: int) -> Path:
    """A tar store of so many rows, all of the same clip, which is not there."""
    part = folder / "part-00001"
    part.mkdir(parents=True)
    builder = IndexBuilder()
    builder.add(Row("0.mp4", "clips/0.mp4", 600_000, 0, bytes(32), 300, 30.0, 30, 0), 0, 0)
    one = builder.drain()
    np.save(part / "text.npy", one["text"])
    for what, kind in (("rows", ROW), ("labels", np.dtype("<i4"))):
        with (part / f"{what}.npy").open("wb") as file:
            form = np.lib.format.dtype_to_descr(kind)
            said = {"descr": form, "fortran_order": False, "shape": (rows,)}
            np.lib.format.write_array_header_1_0(file, said)
            end = file.tell() + rows * kind.itemsize
            for first in range(0, rows if rows < REAL else 0, _CHUNK):
                file.write(one[what].tobytes() * min(_CHUNK, rows - first))
            file.truncate(end)
    index = {
        what: Stored(f"part-00001/{what}.npy", (part / f"{what}.npy").stat().st_size, 0)
        for what in FILES
    }
    write_head(folder, [Part(rows, index, (Stored("part-00001/clips.tar", 0, 0),))])
    return folder


def measured(folder: Path) -> dict[str, Any]:
    """Seconds until the first step's draws and, of rows that are there, its requests; bytes
    meanwhile; ms of a step's draws, as the clock has them and as this process computed."""
    before = _memory()
    begin, used = time.perf_counter(), time.process_time()
    dataset = ClipDataset([Source(folder)])
    draws = dataset.order.draws(0, VIDEOS, 0, VIDEOS)
    requests = [dataset.request(draw) for draw in draws if len(dataset) < REAL]
    start, computed_start = time.perf_counter() - begin, time.process_time() - used
    after = _memory()
    took, computed = [], []
    for step in range(1, STEPS):
        begin, used = time.perf_counter(), time.process_time()
        dataset.order.draws(step, VIDEOS, 0, VIDEOS)
        took.append(time.perf_counter() - begin)
        computed.append(time.process_time() - used)
    return {
        "rows": len(dataset),
        "start_s": start,
        "start_computed_s": computed_start,
        "most_bytes_more": after["VmHWM"] - before["VmRSS"],
        "own_bytes_more": after["RssAnon"] - before["RssAnon"],
        "requests": len(requests),
        "draws_a_step": VIDEOS,
        "draws_ms": statistics.median(took) * 1e3,
        "draws_ms_least": min(took) * 1e3,
        "draws_computed_ms": statistics.median(computed) * 1e3,
    }


def _memory() -> dict[str, int]:
    """Bytes of this process: mapped pages of files count in all but RssAnon."""
    said = Path("/proc/self/status").read_text(encoding="utf-8")
    return {name: int(kb) * 1024 for name, kb in re.findall(r"(\w+):\s+(\d+) kB", said)}


if __name__ == "__main__":
    print(json.dumps(measured(Path(sys.argv[1]))))
