"""The first minutes on a GPU in one command, what is worth most first.

    python -m benchmarks gpu --out results                        # as much as 9 minutes allow
    python -m benchmarks gpu --out results --parts tests ceilings
    python -m benchmarks gpu --rehearse --out results             # on a CPU, tiny shapes

Each part is a process of its own with a time limit of its own: one that fails, hangs or breaks the
GPU's context costs itself alone, and the next one begins. A test's failure is printed when it
happens. Attention is timed by backend, and later parts go by the table that was just measured. The
results are written anew every few seconds, so what was done stays when the command is killed; they
are three files whatever the number of parts:

    summary.md       what passed, what failed, how long it took, and the end of what each part said
    gpu-first.json   the same for programs
    results.tar.gz   every file and the whole output of every part

Parts keep what they compiled in the folder .gpu-cache, so that the same command in the same
checkout is faster the second time. A table of an earlier run is used with
VIDEOMAE_FAST_ATTENTION_TABLE=FILE.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.common.card import card
from benchmarks.common.command import command_of, named_folder, parser_of
from benchmarks.common.record import environment
from benchmarks.gpu.parts import NAMES, PARTS, Call, Part
from benchmarks.gpu.results import FILES, keep, summary
from benchmarks.gpu.running import Result, run_part

SECONDS = 530.0  # of a command that may take 10 minutes
PRINTED = 14  # lines of each part at the end of it all; the summary has more
RESERVE = 5.0  # to end a part and to write the results
SLACK = 10  # a rehearsal's machine may do other things beside it: limits are for a GPU's


def run_all(parts: Sequence[Part], args: argparse.Namespace, record: dict[str, Any]) -> None:
    """Runs the parts in order, as far as the time goes; adds a result of each to the record."""
    end = time.monotonic() + args.seconds
    with tempfile.TemporaryDirectory(prefix="gpu-first-") as name:
        folder = Path(name)
        shared = folder / "shared"
        shared.mkdir()
        done: list[dict[str, Any]] = record["parts"]

        def kept(result: Result) -> None:
            keep({**record, "parts": [*done, asdict(result)]}, folder, args.out)

        for part in parts:
            left = end - time.monotonic() - RESERVE
            if left < min(part.needs, args.seconds / 4):
                result = Result(part.name, "no time was left")
            else:
                out = folder / part.name
                out.mkdir()
                seconds = min(part.limit, left)
                call = Call(
                    args.device, args.rehearse, args.batch, out, shared, seconds, record["card"]
                )
                print(f"{part.name}: at most {seconds:.0f} s", flush=True)
                result = run_part(part, call, kept)
            print(f"{part.name}: {result.outcome}, {result.seconds:.0f} s", flush=True)
            done.append(asdict(result))
            keep(record, folder, args.out)


def free(out: Path) -> Path:
    """The folder, or a numbered one in it where results of an earlier run are."""
    number, folder = 1, out
    while any((folder / name).exists() for name in FILES):
        number += 1
        folder = out / str(number)
    if folder != out:
        print(f"{out} has results of an earlier run: these go to {folder}", flush=True)
    return folder


def arguments() -> argparse.ArgumentParser:
    """The parser of ``gpu``."""
    parser = parser_of("gpu", __doc__, device="cuda", seconds=SECONDS)
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=NAMES,
        metavar="PART",
        help=f"of {', '.join(NAMES)}; default: as far as the time goes, "
        + ", ".join(part.name for part in PARTS if part.first),
    )
    parser.add_argument(
        "--batch",
        type=int,
        help="clips; default: 128, and of ViT-g 16, or 32 on a card of 100 GiB and more",
    )
    parser.add_argument(
        "--rehearse", action="store_true", help="on the CPU, with tiny shapes: no figure counts"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs the parts.

    Returns:
        1 where one did not pass.
    """
    parser = arguments()
    args = parser.parse_args(argv)
    args.out = free(named_folder(parser, args))
    if args.rehearse:
        args.device, args.batch = "cpu", args.batch or 2
    parts = [part for part in PARTS if (part.name in args.parts if args.parts else part.first)]
    if args.parts:
        parts.sort(key=lambda part: args.parts.index(part.name))
    if args.rehearse:
        parts = [replace(part, limit=SLACK * part.limit) for part in parts]
    record: dict[str, Any] = {
        "kind": "first minutes",
        # This process leaves the GPU alone: its parts break it or not
        **environment("cpu", command_of("gpu", argv)),
        "device": args.device,
        "card": {} if args.rehearse else card(),
        "parts": [],
        "left_out": [],
    }
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the running part ends, too
    try:
        run_all(parts, args, record)
    finally:
        signal.signal(signal.SIGTERM, before)
    print(f"\n{summary(record, PRINTED)}\n\nwritten: {args.out}/{', '.join(FILES)}")
    return int(any(part["outcome"] != "passed" for part in record["parts"]))
