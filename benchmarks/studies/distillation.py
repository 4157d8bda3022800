"""Does a student learn more from a teacher than from labels? A small experiment, seed by seed.

    python -m benchmarks distillation --seeds 5
    python -m benchmarks distillation --tiny --seeds 2

A bright square crosses a patterned, noisy field; the direction is the class. A teacher is
fine-tuned on many such videos. Students, smaller ones, get a few of these videos: one by their
labels alone (``finetune``), one by what the teacher says of them (``distill``, without labels), and
by features and labels where `--ways` asks for it. For each seed all begin with the same weights and
see the same clips, mixed alike, for the same number of steps. What is told is the top-1 of the last
epoch on videos that nobody was trained on. The teacher has seen more labels than its students: that
is what it can pass on, and the experiment shows whether it does. The videos are made anew, or kept
in `--work`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common.command import command_of, parser_of, results_folder
from benchmarks.common.record import environment, stamp
from benchmarks.report.records import finish
from videomae_fast.demo.videos import write_h264
from videomae_fast.recipes import DistillConfig, FinetuneConfig, Source, changed
from videomae_fast.tasks.classification import finetune
from videomae_fast.tasks.distillation import distill
from videomae_fast.tasks.validation import BEST, History
from videomae_fast.training.metrics import read_metrics

SIDE, FRAMES, FPS = 32, 16, 16
WAYS = ("labels", "logits", "features")
Record = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How much of everything.

    Attributes:
        classes: directions.
        teacher, student, validation: videos of each class.
        teacher_epochs: of the teacher, over its videos.
        rounds: how often a student sees its videos in an epoch, which ends with a validation.
        epochs: of a student.
        videos_per_step: of a student; the teacher has twice as many.
    """

    classes: int = 4
    teacher: int = 60
    student: int = 2
    validation: int = 50
    teacher_epochs: int = 8
    rounds: int = 24
    epochs: int = 30
    videos_per_step: int = 4


TINY = Scale(4, 4, 2, 2, 1, 1, 2, 4)


def arguments() -> argparse.ArgumentParser:
    """The parser of ``distillation``."""
    parser = parser_of("distillation", __doc__, tiny=True, threads=2)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each way; default: 3")
    parser.add_argument("--first-seed", type=int, default=0, help="of them; default: 0")
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=["labels", "logits"],
        help="of teaching; default: labels logits",
    )  # fmt: skip
    parser.add_argument(
        "--student-videos", type=int, help=f"of each class; default: {Scale.student}"
    )
    parser.add_argument("--work", type=Path, help="folder of videos and runs; default: a temporary")
    return parser


def scale_of(args: argparse.Namespace) -> Scale:
    """How much of everything the options ask for.

    Raises:
        ValueError: more videos for a student than the teacher has, or none.
    """
    scale = TINY if args.tiny else Scale()
    if args.student_videos is not None:
        scale = replace(scale, student=args.student_videos)
    if not 1 <= scale.student <= scale.teacher:
        raise ValueError(f"{scale.student} videos of a class, of the teacher's {scale.teacher}")
    return scale


def pictures(label: int, number: int, classes: int) -> Iterator[NDArray[np.uint8]]:
    """The frames of a video, uint8 [SIDE, SIDE, 3]: a function of its class and number."""
    rng = np.random.default_rng([label, number])
    field = np.kron(rng.integers(50, 130, (4, 4, 3)), np.ones((SIDE // 4, SIDE // 4, 1)))
    colour, square = rng.integers(150, 256, 3), 12
    angle, way = 2 * np.pi * label / classes, rng.uniform(14, 20)
    middle = rng.uniform(12, 20, 2)
    for frame in range(FRAMES):
        along = way * (frame / (FRAMES - 1) - 0.5)
        top, left = middle + along * np.array([np.sin(angle), np.cos(angle)]) - square / 2
        rows, columns = (
            slice(max(0, round(edge)), max(0, round(edge) + square)) for edge in (top, left)
        )
        picture = field.copy()
        picture[rows, columns] = colour
        yield np.clip(picture + rng.normal(0, 10, picture.shape), 0, 255).astype(np.uint8)


def write_list(folder: Path, name: str, numbers: range, classes: int) -> Path:
    """Renders what is missing of these videos of each class, and lists them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in numbers:
        for label in range(classes):
            path = folder / f"{label}-{number}.mp4"
            if not path.exists():
                write_h264(path, pictures(label, number, classes), fps=FPS)
            lines.append(f"{path} {label}\n")
    (folder / f"{name}.csv").write_text("".join(lines))
    return folder / f"{name}.csv"


def common(work: Path, train: Path, validation: Path) -> dict[str, Any]:
    """What teacher and students have in common, by dotted name."""
    return {
        "model.size": "small",
        "model.image_size": SIDE,
        "model.frames": FRAMES // 2,
        "model.patch_size": 8,
        "model.drop_path": 0.0,
        "model.init_scale": 1.0,
        "data.lists": (Source(train, format="labels"),),
        "data.validation": (Source(validation, format="labels"),),
        "data.stride": 2,
        "data.workers": 0,
        "data.cache": str(work / "cache"),
        "data.validation_batch": 50,
        "augment.operations": 0,
        "augment.area": (0.6, 1.0),
        "augment.flip": 0.0,
        "augment.erase": 0.0,
        "mix.smoothing": 0.0,
        "optim.layer_decay": 1.0,
        "run.device": "cpu",
        "run.log_every": 50,
        "run.checkpoint_every": 1_000_000,
    }


def teacher_of(scale: Scale, shared: dict[str, Any]) -> FinetuneConfig:
    """The teacher's run."""
    return changed(
        FinetuneConfig(),
        {
            **shared,
            "model.width": 96,
            "model.depth": 4,
            "model.heads": 3,
            "mix.mixup": 0.0,
            "mix.cutmix": 0.0,
            "optim.videos_per_step": 2 * scale.videos_per_step,
            "optim.base_lr": 0.05,
            "schedule.epochs": scale.teacher_epochs,
            "schedule.warmup_epochs": min(2, scale.teacher_epochs - 1),
            "run.seed": 1000,
        },
    )


def student_of(
    way: str, scale: Scale, seed: int, shared: dict[str, Any], teacher: Path
) -> FinetuneConfig:
    """A student's run."""
    values = {
        **shared,
        "model.width": 48,
        "model.depth": 2,
        "model.heads": 2,
        "data.epoch_size": scale.student * scale.classes * scale.rounds,
        "optim.videos_per_step": scale.videos_per_step,
        "optim.base_lr": 0.1,
        "schedule.epochs": scale.epochs,
        "schedule.warmup_epochs": 1,
        "run.seed": seed,
    }
    if way == "labels":
        return changed(FinetuneConfig(), values)
    values["distillation.teacher"] = str(teacher)
    if way == "features":
        values |= {"distillation.mode": "features", "distillation.label_share": 0.5}
    return changed(DistillConfig(), values)


def trained(config: FinetuneConfig, output: Path) -> Record:
    """Runs a configuration, and says what came out."""
    begin = time.perf_counter()
    if isinstance(config, DistillConfig):
        distill(config, output=output, resume="never", log=_quiet)
    else:
        finetune(config, output=output, resume="never", log=_quiet)
    epochs, steps = History(output).epochs, read_metrics(output / "metrics.jsonl")
    found: Record = {
        "seconds": time.perf_counter() - begin,
        "steps": len(steps),
        "top1": epochs[-1].weights.top1,
        "loss": epochs[-1].weights.loss,
        "by_epoch": [one.weights.top1 for one in epochs],
    }
    timed = [one for one in steps if "teacher_ms" in one]
    if timed:
        for name in ("teacher_ms", "teacher_share"):
            found[name] = sum(one[name] for one in timed) / len(timed)
    return found


def run(args: argparse.Namespace, command: list[str], work: Path) -> Record:
    """The teacher, then all ways for one seed after the other; a record."""
    torch.set_num_threads(args.threads)
    scale = scale_of(args)
    videos = work / "videos"
    every = write_list(videos, "teacher", range(scale.teacher), scale.classes)
    few = write_list(videos, "student", range(scale.student), scale.classes)
    unseen = range(10_000, 10_000 + scale.validation)
    validation = write_list(videos, "validation", unseen, scale.classes)
    runs = work / f"runs-{stamp()}"
    teacher = trained(teacher_of(scale, common(work, every, validation)), runs / "teacher")
    _say("teacher", None, teacher)
    record: Record = {
        "kind": "distillation",
        **environment("cpu", command),
        "settings": {
            "tiny": args.tiny,
            "seeds": args.seeds,
            "first_seed": args.first_seed,
            "ways": args.ways,
            **vars(scale),
        },
        "teacher": teacher,
        "runs": [],
    }
    shared = common(work, few, validation)
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for way in args.ways:
            config = student_of(way, scale, seed, shared, runs / "teacher" / BEST)
            found = trained(config, runs / f"{way}-{seed}")
            record["runs"].append({"way": way, "seed": seed, **found})
            _say(way, seed, found)
    return record


def _say(way: str, seed: int | None, found: Record) -> None:
    told = way if seed is None else f"seed {seed}, {way}"
    print(f"{told}: top-1 {found['top1']:.1%}, {found['seconds']:.0f} s", flush=True)


_quiet: Callable[[str], None] = lambda _: None  # noqa: E731


def main(words: Sequence[str]) -> int:
    """Runs the experiment, and writes record, table and plot.

    Returns:
        The exit status; what came out does not change it.
    """
    parser = arguments()
    args = parser.parse_args(words)
    if args.seeds < 1:
        parser.error("--seeds must be at least 1")
    try:
        scale_of(args)
    except ValueError as error:
        parser.error(str(error))
    with ExitStack() as held:
        work = args.work or Path(held.enter_context(tempfile.TemporaryDirectory()))
        record = run(args, command_of("distillation", words), work)
    size = "tiny" if args.tiny else f"{record['settings']['student']}-videos"
    return finish(record, results_folder(args) / f"distillation-{size}-cpu-{stamp()}.json")
