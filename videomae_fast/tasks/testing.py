"""Tests a classifier in several views of each video: by any number of processes, and resumable."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.dataset import ClipDataset
from videomae_fast.data.failures import Failure
from videomae_fast.data.files import write_lines
from videomae_fast.data.labels.names import class_names
from videomae_fast.data.lists.sources import LoadedSource
from videomae_fast.data.loader.pipeline import every_entry
from videomae_fast.data.views.augmented import Sampling
from videomae_fast.data.views.evaluation import Evaluation
from videomae_fast.errors import UsageError, VideoMAEFastError
from videomae_fast.evaluation.accuracy import (
    ClassAccuracy,
    by_class,
    confusion,
    mean_class_accuracy,
    top_k,
)
from videomae_fast.evaluation.multi_view import score_videos
from videomae_fast.interop import SourceHints, read_weights
from videomae_fast.interop.weights.model_weights import ModelWeights
from videomae_fast.models.classifier import VideoClassifier
from videomae_fast.recipes.source import Source
from videomae_fast.tasks.initial import digests
from videomae_fast.tasks.labelled import Classes, check_formats, check_labels
from videomae_fast.tasks.pinned import settled
from videomae_fast.tasks.score_journal import ScoreJournal, from_text
from videomae_fast.tasks.testing_into import testing_into
from videomae_fast.tasks.validation import IN_TEST, at_chance
from videomae_fast.training import checkpoint
from videomae_fast.training.checkpoint import Log
from videomae_fast.training.parallel.world import World

_SECONDS: Final = 10.0  # between progress lines


@dataclass(frozen=True)
class ViewSettings:
    """How a classifier is tested.

    Attributes:
        segments, crops: views of a video are all pairs of these.
        sampling, stride: of a clip's frames, as in training.
        frames: of a clip; image_size: its side in pixels.
        decoder: of the videos.
        precision: "auto" (bf16 on a GPU), "fp32" or "bf16".
        clips: that the model takes at a time; workers: loader processes of each process;
            device: "auto", "cpu" or "cuda"; time_limit: seconds for one video. These don't change
            the scores.
        heads: of attention, that somebody told of weights that don't say it; None: nobody did.
    """

    segments: int
    crops: int
    sampling: Sampling
    stride: int
    frames: int
    image_size: int
    decoder: str = "pyav"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    clips: int = 30
    workers: int = 4
    device: str = "auto"
    time_limit: float = 120.0
    heads: int | None = None


@dataclass(frozen=True)
class ViewResult:
    """What a test found.

    Attributes:
        videos: that were scored.
        failures: of those that could not be read, which count in no accuracy.
        top1, top5: shares of videos, 0 to 1.
        mean_class: mean of the classes' accuracies.
        table: a row per class.
        confusion: int64 [classes, classes], how often each class (row) is taken for each (column).
    """

    videos: int
    failures: tuple[Failure, ...]
    top1: float
    top5: float
    mean_class: float
    table: tuple[ClassAccuracy, ...]
    confusion: NDArray[np.int64]


def weights_path(path: Path) -> Path:
    """The file or folder that weights are read from; of a run its newest whole checkpoint."""
    if (path / "checkpoints").is_dir() or (path / checkpoint.STATE).is_file():
        return checkpoint.weights_file(path)
    return path


def classifier_weights(path: Path, hints: SourceHints) -> ModelWeights:
    """The weights to test.

    Raises:
        UsageError: they hold no classifier.
        WeightsError: they can't be read.
    """
    weights = read_weights(path, hints)
    if weights.kind != "classifier":
        raise UsageError(
            f"{path}: holds {weights.kind} weights and no classifier: fine-tune them first "
            "(videomae-fast finetune --init)"
        )
    return weights


def score_lists(
    path: Path,
    weights: ModelWeights,
    sources: Sequence[Source],
    settings: ViewSettings,
    *,
    classes: str | None,
    output: Path,
    log: Log = print,
) -> ViewResult:
    """Scores every video of lists once, in all of its views, and goes on where it was stopped.

    Under ``torchrun`` each process takes its share. ``output`` then holds ``result.json``,
    ``classes.csv``, ``scores.jsonl`` (a line per video, in the order of the lists) and
    ``failures.jsonl``, all whole or not there.

    Args:
        path: what the weights were read from.
        weights: a classifier's.
        sources: labelled lists.
        settings: how.
        classes: names of the classes, as ``data.classes``; None takes those of the weights.
        output: folder, made where missing; one of another test is refused.
        log: takes progress lines, in the main process only.

    Returns:
        The result, on every process.

    Raises:
        UsageError, ListError: something that can't be, or `output` is of another test.
        VideoMAEFastError: not one video could be read.
    """
    check_formats(sources)
    with testing_into(output, settings.device) as world:
        lists = settled(sources, world)
        test = _Test(path, weights, lists, settings, classes, output, world)
        return test.run(log if world.is_main else _quiet)


class _Test:
    def __init__(
        self,
        path: Path,
        weights: ModelWeights,
        sources: Sequence[Source],
        settings: ViewSettings,
        classes: str | None,
        output: Path,
        world: World,
    ) -> None:
        self.weights, self.settings, self.output, self.world = weights, settings, output, world
        names = weights.labels if classes is None else class_names(classes)
        if names is not None and len(names) != weights.classes:
            raise UsageError(
                f"{classes}: names {len(names)} classes, and the weights have {weights.classes}"
            )
        if weights.labels is not None and names is not None and names != weights.labels:
            own, their = next(
                pair for pair in zip(names, weights.labels, strict=True) if pair[0] != pair[1]
            )
            raise UsageError(
                f"{classes}: names {own!r} what the weights name {their!r}: label the list by the "
                "weights' classes (as classes.txt of their run), and leave --classes out"
            )
        self.classes = Classes(weights.classes, names)
        rule = Evaluation(settings.sampling, settings.segments, settings.crops)
        self.dataset = ClipDataset(
            sources,
            frames=settings.frames,
            stride=settings.stride,
            image_size=settings.image_size,
            samples=rule.views,
            decoder=settings.decoder,
            rule=rule,
        )
        check_labels(self.dataset.sources, self.classes)
        self.bf16 = settings.precision == "bf16" or (
            settings.precision == "auto" and world.device.type == "cuda"
        )
        self._path = path

    def run(self, log: Log) -> ViewResult:
        world, settings = self.world, self.settings
        draws = every_entry(self.dataset)
        failures: list[Failure] = []
        with ScoreJournal(self.output, world, self._made_from) as journal:
            todo = [draw for draw in draws if draw.position not in journal.before]
            if journal.before:
                log(f"{len(draws) - len(todo)} of {len(draws)} videos were scored before")
            model = self.weights.model().to(world.device)
            assert isinstance(model, VideoClassifier)
            mine = todo[world.rank :: world.size]
            since = time.monotonic()
            scored = score_videos(
                model,
                self.dataset,
                mine,
                clips=settings.clips,
                workers=settings.workers,
                device=world.device,
                bf16=self.bf16,
                time_limit=settings.time_limit,
            )
            for number, one in enumerate(scored, 1):
                if one.scores is None:
                    assert one.failure is not None
                    failures.append(one.failure)
                else:
                    journal.add(one.place, scores=one.scores)
                if time.monotonic() - since > _SECONDS:
                    since = time.monotonic()
                    log(f"{number} of this process's {len(mine)} videos")
        failed = [one for part in world.gather(failures) for one in part]
        failed.sort(key=lambda one: one.position)
        result = None
        if world.is_main:
            read = {draw.position for draw in draws} - {one.position for one in failed}
            lines = journal.scored(read)
            every = {place: from_text(said["scores"]) for place, said in lines.items()}
            result = self._result(every, failed, log)
        found: ViewResult = world.from_main(result)
        return found

    def _result(
        self, scored: dict[int, NDArray[np.float64]], failed: list[Failure], log: Log
    ) -> ViewResult:
        for failure in failed:
            log(f"left out: {failure}")
        draws = {draw.position: draw for draw in every_entry(self.dataset)}
        places = sorted(scored.keys() & draws.keys())
        if not places:
            raise VideoMAEFastError(
                f"none of {len(draws)} videos could be read; the first: {failed[0]}"
            )
        labels = np.array([self.dataset.entry(draws[place]).label for place in places])
        scores = np.stack([scored[place] for place in places])
        table = confusion(scores, labels)
        result = ViewResult(
            len(places),
            tuple(failed),
            top_k(scores, labels, 1),
            top_k(scores, labels, 5),
            mean_class_accuracy(table),
            tuple(by_class(table, self.classes.labels)),
            table,
        )
        warning = at_chance(result.top1, result.videos, self.classes.count, IN_TEST)
        if warning is not None:
            log(warning)
        said = {
            "videos": result.videos,
            "failed": len(failed),
            "top1": result.top1,
            "top5": result.top5,
            "mean_class": result.mean_class,
            "warning": warning,
            "segments": self.settings.segments,
            "crops": self.settings.crops,
        }
        write_lines(self.output / "scores.jsonl", self._lines(places, scores, labels))
        write_lines(self.output / "failures.jsonl", [one.to_json() + "\n" for one in failed])
        write_lines(self.output / "classes.csv", _rows(result.table))
        write_lines(self.output / "result.json", [json.dumps(said, indent=2) + "\n"])
        return result

    def _lines(
        self, places: Sequence[int], scores: NDArray[np.float64], labels: NDArray[np.int64]
    ) -> Iterator[str]:
        draws = every_entry(self.dataset)
        for place, row, label in zip(places, scores, labels.tolist(), strict=True):
            draw = draws[place]
            said = {
                "path": str(self.dataset.file(draw)),
                "line": self.dataset.entry(draw).line,
                "label": label,
                "prediction": int(row.argmax()),
                "scores": [round(score, 6) for score in row.tolist()],
            }
            yield json.dumps(said) + "\n"

    def _made_from(self) -> dict[str, Any]:
        """What the scores depend on."""
        free = {"clips", "workers", "device", "time_limit", "precision"}
        if self.settings.heads is None:
            free.add("heads")  # as tests of earlier versions say nothing of them
        return {
            **{k: v for k, v in asdict(self.settings).items() if k not in free},
            "bf16": self.bf16,
            "weights": digests(self._path),
            "positions": [self.weights.config.frames, self.weights.config.image_size],
            "lists": [_said(one) for one in self.dataset.sources],
        }


def _said(one: LoadedSource) -> dict[str, Any]:
    """A list's options, which decide what its entries are; and what it holds, wherever it lies."""
    said = asdict(one.source)
    del said["name"], said["weight"]
    return {**said, "path": one.digest(), "root": str(one.source.root)}


def _rows(table: Sequence[ClassAccuracy]) -> Iterator[str]:
    """The table of classes as CSV."""
    yield "label,name,videos,right,accuracy,most often taken for\n"
    for row in table:
        name = '"' + row.name.replace('"', '""') + '"'
        accuracy = "" if row.accuracy is None else f"{row.accuracy:.6f}"
        other = "" if row.most_often is None else str(row.most_often)
        yield f"{row.label},{name},{row.videos},{row.right},{accuracy},{other}\n"


def _quiet(_: str) -> None:
    """The log of all processes but the main one."""
