"""The engine: makes the steps of a task, in one process or several, to the end of its run."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final, Generic, NoReturn

import torch

from videomae_fast.data.errors import (
    FailureShareError,
    OutputError,
    StoppedWaitingError,
    StoreUnreachableError,
    WorkerDiedError,
)
from videomae_fast.errors import VideoMAEFastError
from videomae_fast.interop import load_into
from videomae_fast.training import checkpoint
from videomae_fast.training.checkpoint import Log
from videomae_fast.training.deterministic import deterministic_algorithms
from videomae_fast.training.errors import InterruptedRunError, NonFiniteError
from videomae_fast.training.finite import not_finite
from videomae_fast.training.folder import RunFolder
from videomae_fast.training.hangs import hang_reports, telling_stacks
from videomae_fast.training.metrics import Progress
from videomae_fast.training.optimizer import set_weight_decay
from videomae_fast.training.parallel.fsdp import local
from videomae_fast.training.parallel.launcher import ending_with_launcher
from videomae_fast.training.parallel.layout import layout_of
from videomae_fast.training.parallel.peers import AGREED, failing_together
from videomae_fast.training.parallel.replicas import check_replicas
from videomae_fast.training.parallel.world import World, videos_per_micro_batch
from videomae_fast.training.records import NonFiniteStep, StepBuffer
from videomae_fast.training.restore import check_finite, load_moments
from videomae_fast.training.resume import (
    check_length,
    check_same_run,
    starting_point,
    tell_drawn_by_place,
)
from videomae_fast.training.saving import Saver
from videomae_fast.training.step import TrainStep
from videomae_fast.training.step_mode import make_step
from videomae_fast.training.task import Batch, Settings, Task, Timed
from videomae_fast.training.telling import Teller
from videomae_fast.training.utilization import Utilization

ENOUGH_DRAWS: Final = 1000
"""Draws from which on a share of failed ones means something (or an epoch, where that is less)."""

_NAMED_CLIPS: Final = 5
_UNREACHABLE: Final = 1000  # in the place of a signal's number


@dataclass(frozen=True)
class RunResult:
    """What a finished run leaves.

    Attributes:
        steps: of the run, those before a resume included.
        last_loss: of the last step; None where this call made no step or no clip of it could be
            read.
        checkpoint: the last one.
    """

    steps: int
    last_loss: float | None
    checkpoint: Path


def run(
    make: Callable[[World], Task[Batch]],
    settings: Settings,
    *,
    output: str | Path,
    resume: str = "auto",
    log: Log = print,
) -> RunResult:
    """Trains: the whole run, or what is left of it.

    Under ``torchrun`` each process calls this with the same arguments. ``output`` then holds
    ``config.json``, ``metrics.jsonl`` (a line per step), ``checkpoints/step-NNNNNNNN`` and
    ``bad_files.rankN.jsonl`` (what could not be read).

    Args:
        make: the task, for this process among all; it looks at the data and writes nothing.
        settings: the task's.
        output: folder, made where missing.
        resume: "auto" goes on from the newest whole checkpoint in ``output``; "never" refuses a
            folder with a run in it; else a checkpoint folder to go on from.
        log: takes progress lines, in the main process only.

    Raises:
        UsageError, ListError: the config, or a data list, asks for what can't be; or another
            process works in ``output``.
        WeightsError: weights to begin from do not fit the model.
        CheckpointError: a checkpoint can't be written, or belongs to another run.
        OutputError: a file of ``output`` can't be written, or was taken away.
        RankFailedError: another process of the run failed or was killed.
        FailureShareError: more files than allowed could not be read; the state was saved.
        StoreUnreachableError: an object store could not be reached for too long; the state was
            saved.
        NonFiniteError: the loss or gradient was NaN or infinite; the state before it was saved.
        ReplicaError: copies of the weights differ that ought to be equal; nothing was saved.
        InterruptedRunError: SIGTERM or SIGINT; the state after the step in progress was saved.
    """
    with ending_with_launcher(), telling_stacks(), hang_reports(Path(output)):
        world = World.start(settings.device)
        together = False
        try:
            with (
                world.asked,
                failing_together(world.store, world.rank, world.waits_for),
                world.watched(Path(output) / "hang", settings.group_timeout),
                ExitStack() as promises,
            ):
                if settings.deterministic:
                    promises.enter_context(deterministic_algorithms(world.device))
                layout_of(settings.shard, world)  # what can't be leaves no folder
                folder = RunFolder(Path(output), world)
                try:
                    task = make(world)
                    loop = _open(task, folder, world, resume, log if world.is_main else _quiet)
                    result = loop.train()
                finally:
                    folder.close()
            together = True
            return result
        except AGREED:
            together = True
            raise
        finally:
            world.close(together=together)


def _open(
    task: Task[Batch], folder: RunFolder, world: World, resume: str, log: Log
) -> _Loop[Batch]:
    """Takes the output folder, the state to start from, and what the run writes."""
    settings = task.settings
    folder.lock(task.activity)
    found = None
    if world.is_main:
        found = starting_point(folder.path, resume, log, task.fingerprint_of)
    path = world.from_main(None if found is None else str(found.folder))
    saved = found or (None if path is None else checkpoint.read(Path(path), verify=False))
    start = 0 if saved is None else saved.step

    sharded = layout_of(settings.shard, world) > 1
    # The others get weights, or their parts of them, from the main process
    with torch.device("meta") if sharded and not world.is_main else nullcontext():
        model = task.model()
    if saved is None:
        init = world.from_main(task.begin(model, log) if world.is_main else None)
    else:
        before = task.fingerprint_of(saved)
        check_same_run(saved, before, task.fingerprint, task.data)
        check_length(saved, before, task.fingerprint, log)
        tell_drawn_by_place(saved, task.objective, world.size, settings.accumulation, log)
        init = task.began(saved)
        if world.is_main:
            weights = saved.model()
            check_finite(saved.folder, not_finite(weights))
            load_into(model, weights, origin=str(saved.folder))
            del weights
    step = make_step(task.objective, model, settings, world, log)
    if saved is not None:
        with step.whole_weights():
            load_moments(saved, step, world)
    parent = folder.make_checkpoints()
    if world.is_main and resume not in ("auto", "never"):
        checkpoint.set_aside(parent, start, log)

    failed = folder.begin(
        start,
        draws_before=start * settings.videos_per_step // world.size,
        config=task.config,
        tensorboard=task.name if settings.tensorboard else None,
        prometheus=settings.prometheus,
        log=log,
    )
    log(task.describe())
    videos, parts = settings.videos_per_step, world.size * settings.accumulation
    places = parts * videos_per_micro_batch(videos, world.size, settings.accumulation)
    if places > videos:
        log(
            f"{places - videos} of a step's {places} places stay empty, as {videos} videos don't "
            f"divide by processes x accumulation ({world.size} x {settings.accumulation})"
        )
    log(
        f"{task.fingerprint.total_steps:,} steps of {settings.videos_per_step} videos x "
        f"{settings.clips_per_video} clips on {world.size} process(es), {world.device.type}; "
        + ("from the beginning" if saved is None else f"resumed from {saved.folder}")
    )
    here = saved is not None and saved.folder == folder.checkpoint(start)
    saver = Saver(task, step, folder, world, init=init, saved_step=start if here else None)
    return _Loop(task, step, folder, saver, world, log, start=start, failed_videos=failed)


class _Loop(Generic[Batch]):
    """Steps, and what is done between them."""

    def __init__(
        self,
        task: Task[Batch],
        step: TrainStep[Batch],
        folder: RunFolder,
        saver: Saver,
        world: World,
        log: Log,
        *,
        start: int,
        failed_videos: int,
    ) -> None:
        self.task, self.step, self.folder, self.saver = task, step, folder, saver
        self.world, self.log, self.settings = world, log, task.settings
        self.goodput = folder.goodput
        self.start, self.total = start, task.fingerprint.total_steps
        self.failed_videos = failed_videos
        self.unreachable: StoreUnreachableError | None = None
        self.per_epoch = task.steps_per_epoch
        clips = self.settings.videos_per_step * self.settings.clips_per_video
        self.buffer = StepBuffer(self.per_epoch, clips, step.columns)
        self.progress = Progress(self.total, -(-self.total // self.per_epoch), clips, start)
        self.check_replicas_every = self._checks_replicas()
        self.utilization = Utilization(task.objective, self.settings, world)
        self.teller = Teller(self.progress, task.feeding, log)

    def train(self) -> RunResult:
        """Steps until the end of the run, or until something stops it."""
        with ExitStack() as ending:
            batches = self.task.batches(self.start)
            if isinstance(batches, Generator):
                # Else an error's traceback keeps processes, threads and memory, until a collection
                # ends them in whatever thread it happens to run in.
                ending.callback(batches.close)
            return self._steps(batches)

    def _steps(self, batches: Iterator[Batch]) -> RunResult:
        settings, stop = self.settings, self.world.asked
        last_loss: float | None = None
        self.progress.skip(self.start)
        done, ended = self.start, self._evaluate(self.start)
        while done < self.total and not ended:
            step = done
            self.world.at(step)
            # A process that is asked to stop does not wait for data, but tells the others.
            batch = self._next(batches)
            signum = self.world.agree(_UNREACHABLE if self.unreachable else stop.signum)
            if signum == _UNREACHABLE:
                self._stop_unreachable(step)
            if signum:
                self._stop(step, signum)
            names: list[str] = []
            for micro in range(settings.accumulation):
                if micro:
                    batch = self._next(batches, middle=True)
                if batch is None:
                    self._stop(step, stop.signum)
                self.folder.failed(batch.failures, draws=len(batch.names))
                names += batch.names
                with self.world.doing("forward and backward", waits=True):
                    self.step.forward_backward(batch, step=step, micro=micro)
            rate = self.task.learning_rate(step)
            set_weight_decay(self.step.optimizer, self.task.weight_decay(step))
            with self.world.doing("update", waits=True):
                self.buffer.add(step, rate, self.step.update(rate), names)
            if step == self.start:
                self.world.begun(self.settings.group_timeout)
            if self.goodput is not None:
                self.goodput.stepped()

            done = step + 1
            if self.check_replicas_every and done % self.check_replicas_every == 0:
                check_replicas(self.step.model, self.step.layout, self.world, done)
            save = done % settings.checkpoint_every == 0 or done == self.total
            if save or done % settings.log_every == 0:
                last_loss = self._look(done)
            if save:
                # What an evaluation keeps depends on which checkpoints are there
                self._save(done, wait=done % self.per_epoch == 0 or done == self.total)
            ended = self._evaluate(done)
        if done < self.total:
            if len(self.buffer):
                last_loss = self._look(done)
            self._save(done)
        self.saver.finish()
        if self.start == self.total:
            self._save(self.total)  # where it came from another folder
            self.log(f"nothing left to do: all {self.total} steps were done")
        elif self.failed_videos:
            self.log(
                f"{self.failed_videos} of {done * settings.videos_per_step} draws could not "
                f"be read; which and why is in {self.folder.path}/bad_files.rank*.jsonl"
            )
        return RunResult(done, last_loss, self.folder.checkpoint(done))

    def _checks_replicas(self) -> int:
        """Steps between looks at whether copies of the weights are equal; 0: none."""
        every = self.settings.check_replicas_every
        if every and self.world.size == self.step.layout.shard:
            self.log("check_replicas_every: there is one copy of the weights, so none is compared")
            return 0
        return every

    def _evaluate(self, done: int) -> bool:
        """Has the task evaluate where an epoch or the run ends; whether the run is to end here."""
        if done == 0 or (done % self.per_epoch and done != self.total):
            return False
        found = None
        with self.step.whole_weights(), self._spending("evaluation"):
            try:
                found = self.task.epoch_done(done, self.step.model, self.log)
            except StoreUnreachableError as error:
                self._alone(error, True)
                self.unreachable = error
            except (OSError, OutputError):
                self.folder.check()  # says why it can't be written, where it was taken away
                raise
        if self.unreachable:
            self._stop_unreachable(done)
        if found is None:
            return False
        self.folder.evaluated(done, found.numbers)
        self.progress.skip(done)
        return found.stop

    def _next(self, batches: Iterator[Batch], *, middle: bool = False) -> Batch | None:
        """The next micro-batch; None where the run is to stop. middle: of a step."""
        stop = self.world.asked
        stop.held = middle and self.world.size > 1  # the others are in the step, and wait there
        if stop.signum and not middle:
            return None
        begin = perf_counter()
        try:
            with self.world.doing("waiting for data"):
                batch = next(batches)
        except StoppedWaitingError:
            return None
        except StoreUnreachableError as error:
            self._alone(error, middle)
            self.unreachable = error
            return None
        except WorkerDiedError:
            if self.world.gives_up():  # the signal went to the loaders as well
                return None
            raise
        waited = perf_counter() - begin
        self.progress.waited(waited)
        if self.goodput is not None:
            self.goodput.spend("data", waited)
        return batch

    def _look(self, done: int) -> float | None:
        """Fetches the numbers of the steps since the last look, tells them, and judges them.

        Returns:
            The loss of the last of these steps.
        """
        self.folder.check()
        with self.world.doing("reading its numbers", waits=True):
            steps, bad = self.buffer.fetch()
        speed = self.progress.speed(done)
        if isinstance(self.task.objective, Timed):
            speed |= self.progress.shares(speed, self.task.objective.ms_per_step(len(steps)))
        clips = sum(one.failed_clips for one in steps)
        self.failed_videos += clips // self.settings.clips_per_video
        speed |= self.utilization.shares(speed["clips_per_s"])
        if self.goodput is not None and bad is None and speed["clips_per_s"]:
            seconds = self.progress.clips_per_step / speed["clips_per_s"]
            speed["goodput"] = self.goodput.look(done, seconds)
        self.folder.write(steps, speed)
        if self.folder.ranks is not None:
            took, feeding = self.step.forward_time.seconds(), self.task.feeding
            loading, clips = feeding.seconds() | feeding.frames(), self.progress.clips_per_step
            self.folder.ranks.look(done, len(steps), speed, took, loading, clips)
        if bad is not None:
            self._stop_non_finite(bad)
        at_end = done == self.total
        if done % self.settings.log_every == 0 or at_end:
            self.teller.tell(steps[-1], speed, self.failed_videos, at_end=at_end)
        draws = done * self.settings.videos_per_step
        if draws >= ENOUGH_DRAWS or done >= self.per_epoch:
            try:
                self.folder.report.check(
                    self.settings.max_failed_share, failed=self.failed_videos, draws=draws
                )
            except FailureShareError:
                self._save(done)
                raise
        return steps[-1].loss

    def _save(self, done: int, *, wait: bool = True) -> None:
        with self._spending("checkpoint"):
            self.saver.save(done, wait=wait)
        self.progress.skip(done)

    @contextmanager
    def _spending(self, cause: str) -> Iterator[None]:
        """What is done within is no step."""
        begin = perf_counter()
        with self.world.doing(cause):
            yield
        if self.goodput is not None:
            self.goodput.spend(cause, perf_counter() - begin)
            self.goodput.write()

    def _alone(self, error: StoreUnreachableError, busy: bool) -> None:
        """Raises for all what one process met while the others are `busy`: they don't save."""
        if busy and self.world.size > 1:
            raise VideoMAEFastError(
                f"{error}, in the middle of what several processes do together: the last "
                "checkpoint stands, and the same command goes on from it"
            ) from error

    def _stop(self, done: int, signum: int) -> NoReturn:
        """Saves and ends: the state is that of the steps that are done."""
        if self.unreachable:
            self._stop_unreachable(done)
        if len(self.buffer):
            self._look(done)
        self._save(done)
        error = InterruptedRunError("", signum)
        raise InterruptedRunError(
            f"stopped by {error.signum.name} with {done} of {self.total} steps done; saved in "
            f"{self.folder.checkpoint(done)}. The same command goes on from there",
            signum,
        )

    def _stop_unreachable(self, done: int) -> NoReturn:
        if len(self.buffer):
            self._look(done)
        self._save(done)
        why = self.unreachable or "another process's store can't be reached"
        raise StoreUnreachableError(
            f"{why}. {done} of {self.total} steps are done; saved in "
            f"{self.folder.checkpoint(done)}. The same command goes on from there"
        )

    def _stop_non_finite(self, bad: NonFiniteStep) -> None:
        folder = self.folder.path / "non_finite" / checkpoint.folder_name(bad.step)
        names = [name for part in self.world.gather(bad.names) for name in part]
        self.saver.write(folder, bad.step)
        if self.world.is_main:
            (folder / "clips.json").write_text(json.dumps(names, indent=1), encoding="utf-8")
        shown = "; ".join(names[:_NAMED_CLIPS])
        more = f"; and {len(names) - _NAMED_CLIPS} more" if len(names) > _NAMED_CLIPS else ""
        said = f"step {bad.step}: loss {bad.loss}, gradient norm {bad.grad_norm}. "
        said += _whose(self.world.gather(self.step.own_fault))
        with self.step.whole_weights():
            state = self.step.model.state_dict()
            weight = not_finite({name: local(tensor) for name, tensor in state.items()})
        weight = next((found for found in self.world.gather(weight) if found is not None), None)
        if weight is not None:
            raise NonFiniteError(
                f"{said}The weights were not finite before this step already: {weight}. So neither "
                f"its videos nor the learning rate made it so; the state is saved in {folder}, go "
                "on from an earlier checkpoint with --resume"
            )
        raise NonFiniteError(
            f"{said}The state before this step is saved in {folder} (go on from it with --resume), "
            f"the videos of the step in its clips.json: {shown}{more}. Look at these, try a lower "
            "base_lr or a clip_grad"
        )


def _whose(faults: list[bool]) -> str:
    """Which processes' own losses were not finite, where there are several processes."""
    if len(faults) == 1:
        return ""
    ranks = [str(rank) for rank, fault in enumerate(faults) if fault]
    if not ranks:
        return "Every process's own loss was finite, so it was in the backward pass. "
    return f"The loss of rank {', '.join(ranks)} was not finite. "


def _quiet(_: str) -> None:
    """The log of all processes but the main one."""
