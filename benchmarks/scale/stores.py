"""Stores at scale: a process's start and memory for many rows, and waiting for a bad network.

    python -m benchmarks stores

Stores of 10 million and of 10^9 rows are made of an index alone, the second as a file of holes; a
process opens each and draws steps of 2,048 videos. Then clips come through a server that answers
50 ms late, and one in a hundred times not, or cut; a pause in the place of a step takes them
64 ahead, and one at a time. The same clips without delay and failures tell what a busy machine adds
to the waiting. Of a process's memory, its own is what is not a file's, which all processes share.
Writes JSON and a table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.command import command_of, parser_of, results_folder
from benchmarks.common.record import environment, stamp, write
from benchmarks.scale.store_network import Network, waited, write_clips
from benchmarks.scale.store_rows import write_rows

PAUSE = {"videos": 16, "sleep": 0.4}
"""Of a step: 40 clips a second, where one after another the network gives 20."""


def rows_of(counts: Sequence[int], folder: Path) -> list[dict[str, Any]]:
    """What so many rows cost, in a process of their own each."""
    found = []
    for count in counts:
        store = write_rows(folder / str(count), count)
        words = [sys.executable, "-m", "benchmarks.scale.store_rows", str(store)]
        said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        found.append(json.loads(said))
    return found


def network_of(aheads: Sequence[int], steps: int, folder: Path) -> list[dict[str, Any]]:
    """What is waited for, with so many clips ahead; first with the most of them, and no fault."""
    served, kept = write_clips(folder, 32), folder / "kept"
    cases = [(Network(0.0, 0, 0), max(aheads)), *((Network(), ahead) for ahead in aheads)]
    return [
        waited(served, kept, network, ahead=ahead, steps=steps, **PAUSE)  # type: ignore[arg-type]
        for network, ahead in cases
    ]


def table(record: dict[str, Any]) -> str:
    """Markdown: rows, then the network."""
    lines = [
        "| rows | start, s | computed, s | most more, MB | of its own, MB | draws of a step, ms "
        "| computed, ms |",
        "|-:|-:|-:|-:|-:|-:|-:|",
    ]
    for one in record["rows"]:
        lines.append(
            f"| {one['rows']:,} | {one['start_s']:.2f} | {one['start_computed_s']:.2f} "
            f"| {one['most_bytes_more'] / 1e6:.0f} "
            f"| {one['own_bytes_more'] / 1e6:.0f} | {one['draws_ms']:.1f} "
            f"| {one['draws_computed_ms']:.1f} |"
        )
    lines += [
        "",
        "| delay, ms | clips ahead | clips/s | waiting | requests a clip | bytes for a byte "
        "| failed, cut |",
        "|-:|-:|-:|-:|-:|-:|-:|",
    ]
    for one in record["network"]:
        lines.append(
            f"| {one['network']['delay'] * 1e3:.0f} | {one['ahead']} "
            f"| {one['clips_per_s']:.0f} | {one['waiting_share']:.1%} "
            f"| {one['requests_per_clip']:.3f} | {one['bytes_per_clip_byte']:.3f} "
            f"| {one['failed']}, {one['cut']} |"
        )
    return "\n".join(lines)


def arguments() -> argparse.ArgumentParser:
    """The parser of ``stores``."""
    parser = parser_of("stores", __doc__)
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[10**7, 10**9], help="default: 10^7 and 10^9"
    )
    parser.add_argument("--ahead", type=int, nargs="+", default=[64, 1], help="default: 64 1")
    parser.add_argument("--steps", type=int, default=40, help="through the network; default: 40")
    return parser


def main(words: Sequence[str]) -> int:
    args = arguments().parse_args(words)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "clips").mkdir()
        record = {
            "kind": "stores",
            **environment("cpu", command_of("stores", words)),
            "pause": PAUSE,
            "rows": rows_of(args.rows, folder),
            "network": network_of(args.ahead, args.steps, folder / "clips"),
        }
    path = write(record, results_folder(args) / f"stores-cpu-{stamp()}.json")
    text = table(record)
    path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    print(f"{text}\n\n{path}")
    return 0
