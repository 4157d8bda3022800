"""Runs a plan: what is finished is left out, what was stopped goes on, weights are handed on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from videomae_fast.data.files import make_folder, write_lines
from videomae_fast.data.lock import FolderLock
from videomae_fast.errors import UsageError, WeightsError
from videomae_fast.interop import SourceHints, load_weights
from videomae_fast.interop.weights.encoder import state_digest
from videomae_fast.recipes.classification import FinetuneConfig
from videomae_fast.recipes.distillation import DistillConfig
from videomae_fast.recipes.multi_view import TestConfig
from videomae_fast.recipes.plain import changed
from videomae_fast.recipes.plan import Plan, Stage
from videomae_fast.recipes.schema import PretrainConfig
from videomae_fast.tasks.classification import finetune
from videomae_fast.tasks.distillation import distill
from videomae_fast.tasks.pretraining import pretrain
from videomae_fast.tasks.progressive.flow import check_flow
from videomae_fast.tasks.progressive.outlook import outlooks
from videomae_fast.tasks.progressive.record import (
    Origin,
    Outcome,
    Record,
    Scores,
    check_unchanged,
    read_record,
    record_of,
)
from videomae_fast.tasks.progressive.table import Row, as_json, as_markdown, as_text
from videomae_fast.tasks.testing import ViewSettings, classifier_weights, score_lists
from videomae_fast.tasks.validation import BEST, Epoch, History
from videomae_fast.training import checkpoint
from videomae_fast.training.checkpoint import Log
from videomae_fast.training.loop import RunResult
from videomae_fast.training.metrics import read_metrics

RESULTS = "results"
"""Stem of the table's files, and of the picture."""


@dataclass(frozen=True)
class Place:
    """A stage and its folder."""

    stage: Stage
    folder: Path


def records(plan: Plan, output: Path) -> dict[str, Record]:
    """What is written of the stages that were begun, by name.

    Raises:
        UsageError: a record can't be read, or a finished stage is another one than the plan's.
    """
    found = {}
    for stage in plan.stages:
        record = read_record(output / stage.name)
        if record is not None:
            found[stage.name] = record
            if record.outcome is not None:
                check_unchanged(stage, record, output / stage.name)
    return found


def run_plan(
    plan: Plan,
    output: Path,
    *,
    log: Log = print,
    after: Callable[[Sequence[Row]], None] = lambda _: None,
) -> list[Row]:
    """Runs the stages of a plan, or what is left of them.

    Under ``torchrun`` each process calls this with the same arguments. ``output`` then holds a
    folder per stage, as its task leaves it, with ``stage.json``; and ``results.json``, ``.md`` and
    ``.txt``, a row per finished stage.

    Args:
        plan: what to do.
        output: folder, made where missing.
        log: takes progress lines, in the main process only.
        after: called in the main process with the table when a stage is finished.

    Returns:
        The table, in the main process.

    Raises:
        UsageError: stages whose weights don't fit, or a finished stage that is another one than the
            plan's; nothing was begun.
        VideoMAEFastError: what stops a stage. The same call goes on from there.
    """
    check_flow(plan)
    known = records(plan, output)  # on all processes, before one writes
    for one in outlooks(plan):
        record = known.get(one.stage)
        if one.problem is not None and (record is None or record.outcome is None):
            raise UsageError(f"stage {one.stage!r}, before anything begins: {one.problem}")
    main = os.environ.get("RANK", "0") == "0"
    lock = None
    if main:
        make_folder(output)
        lock = FolderLock(output, "runs a plan")
    try:
        rows: list[Row] = []
        outcomes: dict[str, Outcome] = {}
        for number, stage in enumerate(plan.stages, 1):
            place = Place(stage, output / stage.name)
            title = f"stage {number} of {len(plan.stages)}, {stage.name}"
            record = known.get(stage.name)
            origin = _origin(stage, outcomes) if main else None
            if record is not None and main:
                _check_origin(place, record, origin)
            if record is not None and record.outcome is not None:
                outcomes[stage.name] = record.outcome
                if main:
                    log(f"{title}: is finished")
                    rows.append(Row.of(stage, record.outcome))
                continue
            if main:
                log(f"{title}: {stage.task}")
            outcome = _run(plan, place, output, origin, _named(stage.name, log), main)
            outcomes[stage.name] = outcome
            if main:
                replace(record_of(stage, origin), outcome=outcome).write(place.folder)
                rows.append(Row.of(stage, outcome))
                _write_table(output, rows)
                after(rows)
        if main:
            _write_table(output, rows)
            after(rows)
        return rows
    finally:
        if lock is not None:
            lock.close()


def _run(
    plan: Plan, place: Place, output: Path, origin: Origin | None, log: Log, main: bool
) -> Outcome:
    """Runs one stage; only the main process's outcome says all."""
    stage, config = place.stage, place.stage.config
    weights = None if stage.source is None else _weights(output, stage, main, origin)
    if main:
        record_of(stage, origin).write(place.folder)
    if isinstance(config, TestConfig):
        assert weights is not None
        assert stage.source is not None
        tuned = plan[stage.source].config
        assert isinstance(tuned, FinetuneConfig)
        return _test(place, config, tuned, weights, log)
    if weights is not None:
        config = changed(config, {"model.init": str(weights)})
    if isinstance(config, DistillConfig):
        result = distill(config, output=place.folder, log=log)
    elif isinstance(config, FinetuneConfig):
        result = finetune(config, output=place.folder, log=log)
    else:
        assert isinstance(config, PretrainConfig)
        result = pretrain(config, output=place.folder, log=log)
    return _trained(place, result, main)


def _trained(place: Place, result: RunResult, main: bool) -> Outcome:
    folder, name = place.folder, result.checkpoint.name
    if not main:
        return Outcome(result.steps, name, {}, None, "", {})
    sha256 = {"last": _digest(result.checkpoint)}
    if (folder / BEST).exists():
        sha256["best"] = _digest(folder / BEST)
    losses = [line["loss"] for line in read_metrics(folder / "metrics.jsonl")]
    loss = next((loss for loss in reversed(losses) if loss is not None), None)
    init = checkpoint.read(result.checkpoint, verify=False).state.get("init") or {}
    scores = {}
    epochs = History(folder).epochs
    if epochs:
        scores["validation"] = _scores(epochs[-1])
        best = max((one for one in epochs if one.best), key=lambda one: one.step, default=None)
        if best is not None:
            scores["best"] = _scores(best, average=best.best == "average")
    return Outcome(result.steps, name, sha256, loss, init.get("head", ""), scores)


def _scores(epoch: Epoch, *, average: bool = False) -> Scores:
    numbers = epoch.average if average and epoch.average is not None else epoch.weights
    return Scores(numbers.top1, numbers.top5, numbers.videos, numbers.failed, step=epoch.step)


def _test(place: Place, config: TestConfig, tuned: FinetuneConfig, path: Path, log: Log) -> Outcome:
    data, views = config.data, config.views
    size = views.image_size or tuned.model.image_size
    settings = ViewSettings(
        segments=views.segments,
        crops=views.crops,
        sampling=data.sampling or tuned.data.sampling,
        stride=data.stride or tuned.data.stride,
        frames=views.frames or tuned.model.frames,
        image_size=size if isinstance(size, int) else size[0],
        decoder=data.decoder,
        precision=config.run.precision,
        clips=views.batch,
        workers=data.workers,
        device=config.run.device,
        time_limit=data.decode_timeout,
    )
    weights = classifier_weights(path, SourceHints())
    found = score_lists(
        path, weights, data.lists, settings, classes=data.classes, output=place.folder, log=log
    )
    scores = Scores(
        found.top1,
        found.top5,
        found.videos,
        len(found.failures),
        mean_class=found.mean_class,
        views=f"{views.segments} x {views.crops}",
    )
    return Outcome(0, "", {}, None, "", {"test": scores})


def _weights(output: Path, stage: Stage, main: bool, origin: Origin | None) -> Path:
    """The file that a stage begins from.

    Raises:
        WeightsError: it is not there, or not what its stage left.
    """
    folder = output / str(stage.source)
    path = folder / BEST
    if stage.weights == "last":
        path = checkpoint.weights_file(folder)
    if main and origin is not None and _digest(path) != origin.sha256:
        raise WeightsError(
            f"{path}: is not what stage {stage.source!r} left: put the file back, or move {folder} "
            "away to make the stage again"
        )
    return path


def _origin(stage: Stage, outcomes: dict[str, Outcome]) -> Origin | None:
    """What a stage begins from, by the stage that it is of."""
    if stage.source is None:
        return None
    sha256 = outcomes[stage.source].sha256.get(stage.weights)
    if sha256 is None:
        raise UsageError(
            f"stage {stage.name!r}: stage {stage.source!r} left no {stage.weights} weights, since "
            "not one validation video could be read"
        )
    return Origin(stage.source, stage.weights, sha256)


def _check_origin(place: Place, record: Record, origin: Origin | None) -> None:
    """Raises UsageError where a stage that was begun had other weights than there are now."""
    before = record.origin
    if before == origin:
        return
    was = "no stage's weights" if before is None else f"the {before.weights} of {before.stage!r}"
    now = "none" if origin is None else f"the {origin.weights} of {origin.stage!r}"
    other = "" if was != now else ", which were made again and are other ones"
    raise UsageError(
        f"stage {place.stage.name!r} began from {was} and would begin from {now}{other}: move "
        f"{place.folder} away to make it again"
    )


def _digest(path: Path) -> str:
    """SHA-256 of the weights of a file, or in a checkpoint."""
    return state_digest(load_weights(path if path.is_file() else path / checkpoint.MODEL))


def _named(name: str, log: Log) -> Log:
    return lambda line: log("\n".join(f"[{name}] {part}" for part in line.split("\n")))


def _write_table(output: Path, rows: Sequence[Row]) -> None:
    for ending, text in (
        ("json", as_json(rows)),
        ("md", as_markdown(rows)),
        ("txt", as_text(rows)),
    ):
        write_lines(output / f"{RESULTS}.{ending}", [text])
