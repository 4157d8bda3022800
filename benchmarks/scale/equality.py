"""Losses of the same training on 1, 2 and 4 processes, in every layout of its states, side by side.

    python -m benchmarks equality --processes 1 2 4 --steps 20

A tiny model on the CPU, over gloo: DDP, weights sharded over all processes or over two, freed after
each block or not, one micro-batch and two, dual and random masks, clips that can't be read. Each is
compared with one process: losses, gradient norms, the weights at the end. Nothing is timed. Writes
JSON and a table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.command import command_of, parser_of, results_folder
from benchmarks.common.record import environment, stamp, write
from benchmarks.scale.layouts import RATE, reference

LIMIT = 1800.0
"""Seconds for all variants of one number of processes."""


def arguments() -> argparse.ArgumentParser:
    """The parser of ``equality``."""
    parser = parser_of("equality", __doc__)
    told = "numbers of processes beside 1; default: 1 2 4"
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4], help=told)
    parser.add_argument("--steps", type=int, default=20, help="default: 20")
    return parser


def made(processes: int, steps: int) -> dict[str, Any]:
    """What each variant gave on so many processes."""
    return in_processes(processes, "benchmarks.scale.layouts", str(steps))


def in_processes(processes: int, module: str, *words: str) -> dict[str, Any]:
    """What so many processes write, started by torchrun.

    Args:
        processes: how many.
        module: what each runs; its first word is the file to write, as JSON.
        words: the others.

    Raises:
        RuntimeError: they wrote nothing. Their exit status does not count: gloo may abort at the
            interpreter's end (pytorch issue 179291).
    """
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "found.json")
        done = subprocess.run(
            [sys.executable, *launcher, "-m", module, str(path), *words],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        if not path.exists():
            raise RuntimeError(f"{processes} processes wrote nothing:\n{done.stderr[-4000:]}")
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def compared(found: dict[str, Any], alone: dict[str, Any]) -> dict[str, Any]:
    """A variant beside that of one process: its numbers, and how far they are off at most."""
    pairs = list(zip(found["steps"], alone["steps"], strict=True))
    away = [
        abs(one - other)
        for name, values in found["weights"].items()
        for one, other in zip(values, alone["weights"][name], strict=True)
    ]
    return {
        "loss": [loss for loss, _ in found["steps"]],
        "grad_norm": [norm for _, norm in found["steps"]],
        "loss_off": max(abs(one[0] / other[0] - 1) for one, other in pairs),
        "grad_norm_off": max(abs(one[1] / other[1] - 1) for one, other in pairs),
        "weights_off": max(away),
    }


def table(record: dict[str, Any]) -> str:
    """Markdown: a line for each variant and number of processes."""
    settings = record["settings"]
    rate = settings["learning_rate"]
    lines = [
        f"{settings['steps']} steps of AdamW at {rate:g}, CPU, gloo, torch "
        f"{record['versions']['torch']}; beside one process with one micro-batch and the same "
        "masks: the largest relative distance of losses and gradient norms over all steps, and of "
        "any weight at the end in learning rates.",
        "",
        "| layout; masks; micro-batches | processes | last loss | losses off | norms off "
        "| weights off, lr |",
        "|-|-:|-:|-:|-:|-:|",
    ]
    for processes, every in record["found"].items():
        for name, one in every.items():
            lines.append(
                f"| {name} | {processes} | {one['loss'][-1]:.9f} | {one['loss_off']:.1e} "
                f"| {one['grad_norm_off']:.1e} | {one['weights_off'] / rate:.1e} |"
            )
    return "\n".join(lines)


def main(words: Sequence[str]) -> int:
    args = arguments().parse_args(words)
    every = {processes: made(processes, args.steps) for processes in sorted({1, *args.processes})}
    alone = every[1]
    record = {
        "kind": "equality",
        **environment("cpu", command_of("equality", words)),
        "settings": {"steps": args.steps, "learning_rate": RATE},
        "found": {
            str(processes): {
                name: compared(one, alone[reference(name)]) for name, one in found.items()
            }
            for processes, found in every.items()
        },
    }
    path = write(record, results_folder(args) / f"equality-cpu-{stamp()}.json")
    text = table(record)
    path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    print(f"{text}\n\n{path}")
    return 0
