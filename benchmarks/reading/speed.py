"""Decoded clips and views per second, per core and on a GPU, against the official path.

    python -m benchmarks reading
    python -m benchmarks reading --device cuda --videos FOLDER

Each decoder reads the videos as they are and as `videomae-fast prepare` writes them, and the cache
gives the latter decoded (from memory, as a file that was read before). Frame numbers, crops and
pixels are compared with those of the official path first; nothing that differs is timed. Then all
read the same clips in turns, one thread each; last, the whole pipeline with a loader process per
core.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.command import command_of, device_of, parser_of, results_folder
from benchmarks.common.record import environment, stamp
from benchmarks.measure.timing import Budget, Summary
from benchmarks.reading.contenders import (
    CORE,
    Contender,
    Parts,
    Timed,
    compare,
    contenders,
    default_device_decoders,
)
from benchmarks.reading.material import CACHED, Material, add_material, material_of, settings_of
from benchmarks.report.records import finish
from videomae_fast.data import ClipDataset, Source, clip_loader
from videomae_fast.data.decoders import DECODERS
from videomae_fast.data.device.decoders import NAMES
from videomae_fast.data.reading import ReadSettings
from videomae_fast.errors import VideoMAEFastError

Say = Callable[[str], None]
Case = tuple[Timed, str]
# Draws of an epoch, and steps: more than a pipeline gives in the time it is measured for
EPOCH, ENDLESS = 1024, 1 << 20
PREFETCH = 2


def checked(
    found: Sequence[Contender], videos: Material, samples: int, stride: int
) -> tuple[list[Case], list[dict[str, Any]], dict[str, str]]:
    """Each contender against the official path, one clip of every video and form.

    Returns:
        Who can be timed with which form; all comparisons; who can't read a form, and why.
    """
    cases: list[Case] = []
    checks: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for form, files in videos.forms.items():
        requests = videos.requests(form, range(len(files)), samples, stride)
        truth = found[0].views(requests)
        for contender in (one for one in found if form in one.forms):
            try:
                result = compare(truth, contender.views(requests))
            except VideoMAEFastError as error:
                failed[f"{contender.name}, {form}"] = str(error)
                continue
            row = {"contender": contender.name, "form": form, "place": contender.place}
            passed = result.passed(contender.converts)
            checks.append({**row, **asdict(result), "passed": passed})
            if passed:
                cases.append((contender, form))
    return cases, checks, failed


def measure(
    cases: Sequence[Case],
    videos: Material,
    *,
    rounds: int,
    clips: int,
    samples: int,
    stride: int,
    budget: Budget,
    tell: Say,
) -> list[dict[str, Any]]:
    """Times all in turns, every other round in reverse order; a round is `clips` videos of each."""
    taken: list[list[Parts]] = [[] for _ in cases]
    longest = 0.0
    for i_round in range(rounds):
        if i_round and budget.left() < longest:
            tell(f"{i_round} of {rounds} rounds: the time is up")
            break
        begin = budget.clock()
        places = range(i_round * clips, (i_round + 1) * clips)
        order = list(range(len(cases)))
        for i in order if i_round % 2 == 0 else reversed(order):
            contender, form = cases[i]
            requests = videos.requests(form, places, samples, stride)
            taken[i].append(contender.seconds(requests))
        longest = max(longest, budget.clock() - begin)
        tell(f"round {i_round + 1} of {rounds}{budget.told()}: {budget.clock() - begin:.1f} s")
    return [
        _run(contender, form, rows, clips, samples)
        for (contender, form), rows in zip(cases, taken, strict=True)
    ]


def measured(
    cases: Sequence[Case], videos: Material, args: argparse.Namespace, clips: int
) -> list[dict[str, Any]]:
    """:func:`measure` by what the command line says, with its rounds told."""
    return measure(
        cases,
        videos,
        rounds=args.rounds,
        clips=clips,
        samples=args.samples,
        stride=args.stride,
        budget=Budget(args.seconds),
        tell=lambda text: print(text, flush=True),
    )


def _run(
    contender: Timed, form: str, rows: Sequence[Parts], clips: int, samples: int
) -> dict[str, Any]:
    """Seconds: "decode" and "total" per video, "view" and "join" per view."""
    seconds = {
        "decode": [parts.decode / clips for parts in rows],
        "view": [parts.views / clips / samples for parts in rows],
        "join": [parts.join / clips / samples for parts in rows],
        "total": [parts.total / clips for parts in rows],
    }
    summary = {name: asdict(Summary.of(values)) for name, values in seconds.items()}
    # A device works while cores read ahead, so it is as fast as its own part
    views_per_s = 1 / (
        summary["total"]["median"] / samples
        if contender.place == CORE
        else summary["view"]["median"]
    )
    return {
        "contender": contender.name,
        "form": form,
        "place": contender.place,
        "decodes_per_s": views_per_s / samples,
        "views_per_s": views_per_s,
        "seconds": seconds,
        "summary": summary,
    }


def pipeline(
    videos: Material,
    reading: ReadSettings,
    *,
    stride: int,
    device: torch.device,
    device_decoders: Sequence[str],
    workers: int,
    seconds: float,
    batch: int,
) -> list[dict[str, Any]]:
    """Views per second that the loop receives from `clip_loader`, with a loader process per core.

    The first batches, which wait for the processes to start, are not counted.
    """
    ways: list[dict[str, Any]] = [{"crop_on": "worker"}]
    if device.type == "cuda":
        ways.append({"crop_on": "device"})
    ways += [{"device_decoder": name} for name in device_decoders]
    rows = []
    for form, path in videos.lists.items():
        for way in ways:
            if form == CACHED and "device_decoder" in way:
                continue  # there is nothing to decode
            dataset = ClipDataset(
                [Source(path)],
                frames=reading.frames,
                stride=stride,
                image_size=reading.size,
                samples=reading.samples,
                decoder=reading.decoder,
                epoch_size=EPOCH,
                cache=videos.cache if form == CACHED else None,
            )
            batches = clip_loader(
                dataset,
                videos_per_step=batch,
                total_steps=ENDLESS,
                workers=workers,
                prefetch=PREFETCH,
                device=device,
                **way,
            )
            row = {"form": form, "workers": workers, "videos_per_batch": batch, **way}
            rows.append(row)
            try:
                for _ in islice(batches, PREFETCH + 1):
                    pass
                views, begin = 0, time.perf_counter()
                while (now := time.perf_counter()) < begin + seconds:
                    views += int(next(batches).ok.sum())
                    if device.type == "cuda":
                        torch.cuda.synchronize(device)
                    now = time.perf_counter()
                took = now - begin
                row |= {"views": views, "seconds": took, "views_per_s": views / took}
            finally:
                batches.close()  # type: ignore[attr-defined]
    return rows


def arguments() -> argparse.ArgumentParser:
    """The parser of ``reading``."""
    parser = parser_of("reading", __doc__)
    add_material(parser)
    add = parser.add_argument
    add("--rounds", type=int, default=20, help="default: 20")
    add("--clips", type=int, help="read by each in a round; default: 4, on a GPU 32")
    add("--size", type=int, default=224, help="side of a view in pixels; default: 224")
    add("--samples", type=int, default=4, help="views of a decode; default: 4")
    add("--seconds", type=float, default=100.0, help="for the rounds at most; default: 100")
    add("--pipeline-seconds", type=float, default=8.0, help="each; 0 leaves it out; default: 8")
    add("--workers", type=int, default=os.cpu_count() or 1, help="default: one per core")
    add("--device", default="cpu", help="where views are made besides the CPU; default: cpu")
    add("--device-decoders", nargs="*", choices=NAMES, help="default: all on a GPU, else none")
    add("--cache-gb", type=float, default=8.0, help="for the decoded videos; default: 8")
    return parser


def main(argv: Sequence[str]) -> int:
    """Measures, and writes record, table and plot.

    Returns:
        1 where something is not read as the official path reads it.
    """
    parser = arguments()
    args = parser.parse_args(argv)
    device = device_of(parser, args.device)
    if (why := DECODERS["decord"].why_not()) is not None:
        parser.error(f"the official path can't run: {why}")
    names = args.device_decoders
    decoders = default_device_decoders(device) if names is None else tuple(names)
    clips = args.clips or (32 if device.type == "cuda" else 4)
    if min(args.count, args.rounds, clips, args.samples, args.workers) < 1 or clips > EPOCH:
        parser.error(
            "--count, --rounds, --clips, --samples and --workers must be at least 1, --clips at "
            f"most {EPOCH}"
        )
    torch.set_num_threads(1)
    reading = ReadSettings(args.frames, (args.size, args.size), args.samples, "pyav")
    with tempfile.TemporaryDirectory() as folder:
        videos = material_of(args, Path(folder))
        found, absent = contenders(reading, device, decoders, videos.cache)
        cases, checks, failed = checked(found, videos, args.samples, args.stride)
        record: dict[str, Any] = {
            "kind": "data speed",
            **environment(args.device, command_of("reading", argv)),
            "settings": settings_of(args, clips),
            **videos.record(),
            "failed": {**absent, **failed},
            "checks": checks,
            "runs": [],
            "pipeline": [],
        }
        if all(row["passed"] for row in checks):
            record["runs"] = measured(cases, videos, args, clips)
            for contender in found:
                contender.close()
            if args.pipeline_seconds:
                usable = [n for n in decoders if any(c.name == f"ours, {n}" for c, _ in cases)]
                print("the whole pipeline", flush=True)
                record["pipeline"] = pipeline(
                    videos,
                    reading,
                    stride=args.stride,
                    device=device,
                    device_decoders=usable,
                    workers=args.workers,
                    seconds=args.pipeline_seconds,
                    batch=clips,
                )
    return finish(record, results_folder(args) / f"data-speed-{device.type}-{stamp()}.json")
