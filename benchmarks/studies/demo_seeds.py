"""The demo over several seeds: what it reconstructs, classifies, and how long it takes.

    python -m benchmarks demo-seeds
    python -m benchmarks demo-seeds --seeds 0 --steps 600

Each seed is a whole demo, as ``make demo`` runs it: other videos, weights, crops and masks. Beside
its two classifiers there is a third one, from scratch with the multiply-adds of pre-training for
its fine-tuning as well. Writes JSON, a table and a plot. A seed that was stopped goes on with the
same --work, and its times are then those of the rest.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.command import command_of, parser_of, results_folder
from benchmarks.common.record import environment, stamp
from benchmarks.report.records import finish
from benchmarks.study.compute import BACKWARD
from videomae_fast.demo import settings
from videomae_fast.demo.classifying import ARMS, classify
from videomae_fast.demo.material import rendered
from videomae_fast.demo.motions import MOTIONS
from videomae_fast.demo.run import run_demo
from videomae_fast.demo.settings import Scale, pretraining_config, scale_of
from videomae_fast.masks.spec import mask_spec
from videomae_fast.models.config import mae_config
from videomae_fast.models.flops import classifier_flops, flops

LONG = "from scratch, all compute"
Record = dict[str, Any]


def arguments() -> argparse.ArgumentParser:
    """The parser of ``demo-seeds``."""
    parser = parser_of("demo-seeds", __doc__, threads=2)
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    add("--steps", type=int, help="of pre-training; default: the demo's")
    add(
        "--work", type=Path, default=Path("runs/demo-seeds"),
        help="folder of the demos; default: %(default)s",
    )  # fmt: skip
    return parser


def work_of(scale: Scale) -> tuple[int, int]:
    """Multiply-adds, forward and backward, of pre-training and of one step of fine-tuning."""
    config = pretraining_config(scale, Path(), cache=None)
    shape, clips = mae_config(config.model), scale.videos_per_step * scale.samples
    one = sum(flops(shape, mask_spec(config.masks), "ours", batch=clips).values())
    of_clip = sum(classifier_flops(shape, len(MOTIONS)).values())
    whole = (1 + BACKWARD) * scale.steps * clips * one
    return whole, (1 + BACKWARD) * scale.labelled_per_step * of_clip


def with_all_compute(scale: Scale) -> Scale:
    """The scale whose fine-tuning has the multiply-adds of pre-training as well."""
    whole, step = work_of(scale)
    return replace(scale, finetuning_steps=scale.finetuning_steps + round(whole / step))


def one_seed(scale: Scale, output: Path) -> Record:
    """A demo, and the third classifier; seconds are of the demo alone."""
    begin, work = time.perf_counter(), time.process_time()
    found = run_demo(output, scale=scale, log=_quiet)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - work
    figures = found.figures()
    longer = with_all_compute(scale)
    material = rendered(output, scale, _quiet)
    assert material.labels is not None
    assert material.cache is not None
    more = classify(
        ARMS[1], longer, material.labels, material.cache, output / "run", output / "long", _quiet
    )
    figures["classes"][LONG] = {
        "accuracy": more.accuracy,
        "videos": more.result.videos,
        "by_epoch": more.by_epoch,
        "confusion": more.result.confusion.tolist(),
        "steps": longer.finetuning_steps,
    }
    return {"seed": scale.seed, "seconds": seconds, "cpu_seconds": cpu, **figures}


def main(argv: Sequence[str]) -> int:
    """Runs the demos, and writes record, table and plot.

    Returns:
        The exit status; what came out does not change it, but a demo that has not learnt is an
        error.
    """
    parser = arguments()
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    steps = settings.FULL.steps if args.steps is None else args.steps
    if steps < 1 or min(args.seeds) < 0:
        parser.error("--steps must be at least 1, and --seeds at least 0")
    command, path = (
        command_of("demo-seeds", argv),
        results_folder(args) / f"demo-seeds-cpu-{stamp()}.json",
    )
    scale = scale_of(steps, args.seeds[0])
    whole, step = work_of(scale)
    record: Record = {
        "kind": "demo seeds",
        **environment("cpu", command),
        "settings": {
            "scale": {name: value for name, value in asdict(scale).items() if name != "seed"},
            "multiply_adds": {
                "pretraining": whole, "finetuning": scale.finetuning_steps * step,
            },
        },
        "runs": [],
    }  # fmt: skip
    for seed in args.seeds:
        found = one_seed(scale_of(steps, seed), args.work / f"seed-{seed}-steps-{steps}")
        record["runs"].append(found)
        tops = {arm: f"{one['accuracy']:.1%}" for arm, one in found["classes"].items()}
        held_out = found["reconstruction"]["held_out"]
        print(
            f"seed {seed}: held out {held_out['after']:.3f} (nothing: {held_out['nothing']:.3f}), "
            f"{tops}, {found['seconds']:.0f} s",
            flush=True,
        )
    return finish(record, path)


def _quiet(_: str) -> None:
    """Runs' own lines are in their folders."""
