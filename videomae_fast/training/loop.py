"""The pre-training loop."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from torch import Tensor

from videomae_fast.data.errors import FailureShareError, WorkerDiedError
from videomae_fast.data.failures import FailureReport
from videomae_fast.data.files import AppendFile, make_folder, write_lines
from videomae_fast.data.loader.pipeline import ClipBatch, CropOn, clip_loader, steps_per_epoch
from videomae_fast.data.loader.stats import PipelineStats
from videomae_fast.data.lock import FolderLock
from videomae_fast.interop.weights import load_into
from videomae_fast.training import checkpoint
from videomae_fast.training.checkpoint import Log, Saved
from videomae_fast.training.config import PretrainConfig
from videomae_fast.training.distributed import World, videos_per_micro_batch
from videomae_fast.training.errors import CheckpointError, InterruptedRunError, NonFiniteError
from videomae_fast.training.finite import not_a_number, not_finite
from videomae_fast.training.initial import begin_from, check_same_beginning
from videomae_fast.training.launcher import ending_with_launcher
from videomae_fast.training.metrics import MetricsFile, Progress, TensorBoard
from videomae_fast.training.optimizer import load_optimizer_state, optimizer_state
from videomae_fast.training.peers import AGREED, failing_together
from videomae_fast.training.records import NonFiniteStep, Records
from videomae_fast.training.resume import check_length, check_same_run, starting_point
from videomae_fast.training.signals import StopRequest
from videomae_fast.training.step import TrainStep, build_model

ENOUGH_DRAWS: Final = 1000
"""Draws from which on a share of failed ones means something (or an epoch, where that is less)."""

STARVED: Final = 0.1
"""Share of the time spent waiting for data from which on the progress says why."""

_NAMED_CLIPS: Final = 5


@dataclass(frozen=True)
class PretrainResult:
    """What a finished run leaves.

    steps: of the run, those before a resume included; last_loss: of the last step, None where this
    call made no step or no clip of it could be read; checkpoint: the last one.
    """

    steps: int
    last_loss: float | None
    checkpoint: Path


def pretrain(
    config: PretrainConfig,
    *,
    output: str | Path,
    resume: str = "auto",
    log: Log = print,
) -> PretrainResult:
    """Pre-trains a model: the whole run, or what is left of it.

    Under ``torchrun`` each process calls this with the same arguments. ``output`` then holds
    ``config.json``, ``metrics.jsonl`` (a line per step), ``checkpoints/step-NNNNNNNN`` and
    ``bad_files.rankN.jsonl`` (what could not be read).

    Args:
        output: folder, made where missing.
        resume: "auto" goes on from the newest whole checkpoint in ``output``; "never" refuses a
            folder with a run in it; else a checkpoint folder to go on from.
        log: takes progress lines, in the main process only.

    Raises:
        UsageError, ListError: the config, or a data list, asks for what can't be; or another
            process works in ``output``.
        WeightsError: ``config.init`` does not fit the model.
        CheckpointError: a checkpoint can't be written, or belongs to another run.
        OutputError: a file of ``output`` can't be written, or was taken away.
        RankFailedError: another process of the run failed or was killed.
        FailureShareError: more files than allowed could not be read; the state was saved.
        NonFiniteError: the loss or gradient was NaN or infinite; the state before it was saved.
        InterruptedRunError: SIGTERM or SIGINT; the state after the step in progress was saved.
    """
    with ending_with_launcher():
        world = World.start(config.device)
        together = False
        try:
            with StopRequest() as stop, failing_together(world.store, world.rank):
                run = _Run(config, Path(output), world, log if world.is_main else _quiet)
                try:
                    run.open(resume)
                    result = run.train(stop)
                finally:
                    run.close()
            together = True
            return result
        except AGREED:
            together = True
            raise
        finally:
            world.close(together=together)


class _Run:
    """A run's parts, and the loop over them."""

    def __init__(self, config: PretrainConfig, output: Path, world: World, log: Log) -> None:
        """Looks at config and data; nothing is written."""
        self.config, self.output, self.world, self.log = config, output, world, log
        self.lock: FolderLock | None = None
        self.report: FailureReport | None = None
        self.metrics: MetricsFile | None = None
        self.tensorboard: TensorBoard | None = None
        videos_per_micro_batch(config.videos_per_step, world.size, config.accumulation)
        self.dataset = config.dataset()
        self.per_epoch = steps_per_epoch(self.dataset, config.videos_per_step)
        self.total = config.total_steps(self.per_epoch)
        self.schedule = config.schedule(self.per_epoch)
        self.data = {
            "entries": [len(source) for source in self.dataset.sources],
            "steps_per_epoch": self.per_epoch,
        }

    def open(self, resume: str) -> None:
        """Takes the output folder, the state to start from, and what the run writes."""
        config, output, world, log = self.config, self.output, self.world, self.log
        found = None
        if world.is_main:
            self.lock = FolderLock(output, "pre-trains")
            found = starting_point(output, resume, log)
        folder = world.from_main(None if found is None else str(found.folder))
        saved = found or (None if folder is None else checkpoint.read(Path(folder), verify=False))
        self.start = 0 if saved is None else saved.step
        here = saved is not None and saved.folder == self._folder(saved.step)
        self.saved_step = self.start if here else None

        model = build_model(config)
        self.init: dict[str, Any] | None = None
        if saved is not None:
            check_same_run(saved, config, self.data)
            check_length(saved, config, self.per_epoch, log)
            self.init = check_same_beginning(saved, config.init)
            weights, moments = saved.model(), saved.optimizer()
            if world.is_main:
                _check_finite(saved.folder, weights, moments)
            load_into(model, weights, origin=str(saved.folder))
        elif config.init is not None:
            self.init = begin_from(model, config.init, log, digest=world.is_main)
        self.step = TrainStep(model, config, world)
        if saved is not None:
            load_optimizer_state(model, self.step.optimizer, moments)
        if world.is_main:
            make_folder(output / "checkpoints")
            if resume not in ("auto", "never"):
                checkpoint.set_aside(output / "checkpoints", self.start, log)
        self._open_records(saved)

    def _open_records(self, saved: Saved | None) -> None:
        config, world = self.config, self.world
        self.report = FailureReport(
            self.output,
            world.rank,
            world=world.size,
            start_step=self.start,
            draws_before=self.start * config.videos_per_step // world.size,
        )
        self.failed_videos = world.total(self.report.failed)
        clips = config.videos_per_step * config.samples_per_video
        self.records = Records(self.per_epoch, clips)
        self.feeding = PipelineStats(config.workers)
        self._told = ""
        epochs = -(-self.total // self.per_epoch)
        self.progress = Progress(self.total, epochs, clips, self.start)
        asides = [path for part in world.gather(self.report.aside) for path in part]
        if world.is_main:
            config_text = json.dumps(config.to_dict(), indent=2) + "\n"
            write_lines(self.output / "config.json", [config_text])
            self.metrics = MetricsFile(self.output / "metrics.jsonl", self.start)
            asides += [] if self.metrics.aside is None else [self.metrics.aside]
            if config.tensorboard:
                self.tensorboard = TensorBoard(self.output / "tensorboard", self.start)
        for path in asides:
            self.log(f"damaged lines behind step {self.start} are left out; as it was: {path}")
        self.log(self.dataset.describe())
        self.log(
            f"{self.total:,} steps of {config.videos_per_step} videos x {config.samples_per_video} "
            f"clips on {world.size} process(es), {world.device.type}; "
            + ("from the beginning" if saved is None else f"resumed from {saved.folder}")
        )

    def train(self, stop: StopRequest) -> PretrainResult:
        """Steps until the end of the run, or until something stops it."""
        config = self.config
        batches = clip_loader(
            self.dataset,
            videos_per_step=config.videos_per_step,
            micro_batches=config.accumulation,
            start_step=self.start,
            total_steps=self.total,
            rank=self.world.rank,
            world=self.world.size,
            workers=config.workers,
            device=self.world.device,
            crop_on=self._crop_on(),
            device_decoder=None if config.device_decoder == "none" else config.device_decoder,
            time_limit=config.decode_timeout,
            stats=self.feeding,
        )
        last_loss: float | None = None
        self.progress.skip(self.start)
        for step in range(self.start, self.total):
            # A process that is asked to stop does not wait for data, but tells the others.
            batch = self._next(batches, stop)
            signum = self.world.agree(stop.signum)
            if signum:
                self._stop(step, signum)
            names: list[str] = []
            for micro in range(config.accumulation):
                if micro:
                    batch = self._next(batches)
                assert batch is not None
                assert self.report is not None
                self.report.add(batch.failures, draws=len(batch.names))
                names += batch.names
                self.step.forward_backward(batch, step=step, micro=micro)
            rate = self.schedule(step)
            self.records.add(step, rate, self.step.update(rate), names)

            done = step + 1
            save = done % config.checkpoint_every == 0 or done == self.total
            if save or done % config.log_every == 0:
                last_loss = self._look(done)
            if save:
                self._save(done)
        if self.start == self.total:
            self._save(self.total)  # where it came from another folder
            self.log(f"nothing left to do: all {self.total} steps were done")
        elif self.failed_videos:
            self.log(
                f"{self.failed_videos} of {self.total * config.videos_per_step} draws could not be "
                f"read; which and why is in {self.output}/bad_files.rank*.jsonl"
            )
        return PretrainResult(self.total, last_loss, self._folder(self.total))

    def _crop_on(self) -> CropOn:
        if self.config.crop_on == "auto":
            return "device" if self.world.device.type == "cuda" else "worker"
        return "device" if self.config.crop_on == "device" else "worker"

    def close(self) -> None:
        for opened in (self.report, self.metrics, self.tensorboard, self.lock):
            if opened is not None:
                opened.close()

    def _next(
        self, batches: Iterator[ClipBatch], stop: StopRequest | None = None
    ) -> ClipBatch | None:
        """The next micro-batch; None where the run is asked to stop."""
        if stop is not None and stop.signum:
            return None
        begin = perf_counter()
        try:
            batch = next(batches)
        except WorkerDiedError:
            if stop is not None and stop.signum:  # the signal went to the loaders as well
                return None
            raise
        self.progress.waited(perf_counter() - begin)
        return batch

    def _look(self, done: int) -> float | None:
        """Fetches the numbers of the steps since the last look, tells them, and judges them.

        Returns:
            The loss of the last of these steps.
        """
        self._check_output()
        steps, bad = self.records.fetch()
        speed = self.progress.speed(done)
        for one in steps:
            self.failed_videos += one.failed_clips // self.config.samples_per_video
            for sink in (self.metrics, self.tensorboard):
                if sink is not None:
                    sink.write(one, **speed)
        if self.metrics is not None:
            self.metrics.flush()
        if bad is not None:
            self._stop_non_finite(bad)
        if done % self.config.log_every == 0 or done == self.total:
            self.log(self.progress.line(steps[-1], speed, self.failed_videos))
            held_up = self.feeding.bottleneck()
            if speed["data_wait"] >= STARVED and held_up.stage != self._told:
                self._told = held_up.stage  # once, until it is another one
                self.log(f"waiting for data: {held_up.advice}")
            for line in self.feeding.news():
                self.log(line)
            how = self.feeding.how_read(again=done == self.total)
            if how is not None:
                self.log(how)
        draws = done * self.config.videos_per_step
        assert self.report is not None
        if draws >= ENOUGH_DRAWS or done >= self.per_epoch:
            try:
                self.report.check(
                    self.config.max_failed_share, failed=self.failed_videos, draws=draws
                )
            except FailureShareError:
                self._save(done)
                raise
        return steps[-1].loss

    def _folder(self, step: int) -> Path:
        return self.output / "checkpoints" / checkpoint.folder_name(step)

    def _save(self, step: int) -> None:
        """Saves the state in which ``step`` steps are done, unless that is on the disk already."""
        if step == self.saved_step:
            return
        self._check_output()
        if self.metrics is not None:
            self.metrics.flush()
        # Before a checkpoint that stands for these steps, in all processes
        for written in self._written():
            written.sync()
        self.world.agree(0)
        self._write_state(self._folder(step), step, keep=self.config.keep_checkpoints)
        self.saved_step = step
        self.progress.skip(step)

    def _written(self) -> list[AppendFile]:
        assert self.report is not None
        return [self.report.file, *([] if self.metrics is None else [self.metrics.file])]

    def _check_output(self) -> None:
        """Raises OutputError where the folder, or a file that is written on, was taken away."""
        if self.lock is not None:
            self.lock.check()
        for written in self._written():
            written.check()

    def _write_state(self, folder: Path, step: int, keep: int | None = None) -> None:
        """The main process writes; the others wait, else their end could cut it short."""
        if self.world.is_main:
            self._write_state_here(folder, step, keep)
        self.world.agree(0)

    def _write_state_here(self, folder: Path, step: int, keep: int | None) -> None:
        model = self.step.model
        state: dict[str, Any] = {
            "step": step,
            "config": self.config.to_dict(),
            "model": model.config.to_dict(),
            "model_options": {
                "normalize_target": model.normalize_target,
                "ignore_flat_cubes": model.ignore_flat_cubes,
            },
            "data": self.data,
            "init": self.init,
        }
        optimizer = optimizer_state(model, self.step.optimizer)
        checkpoint.save(folder, model.state_dict(), optimizer, state, keep=keep)

    def _stop(self, step: int, signum: int) -> None:
        if len(self.records):
            self._look(step)
        self._save(step)
        error = InterruptedRunError("", signum)
        raise InterruptedRunError(
            f"stopped by {error.signum.name} with {step} of {self.total} steps done; saved in "
            f"{self._folder(step)}. The same command goes on from there",
            signum,
        )

    def _stop_non_finite(self, bad: NonFiniteStep) -> None:
        folder = self.output / "non_finite" / checkpoint.folder_name(bad.step)
        names = [name for part in self.world.gather(bad.names) for name in part]
        self._write_state(folder, bad.step)
        if self.world.is_main:
            (folder / "clips.json").write_text(json.dumps(names, indent=1), encoding="utf-8")
        shown = "; ".join(names[:_NAMED_CLIPS])
        more = f"; and {len(names) - _NAMED_CLIPS} more" if len(names) > _NAMED_CLIPS else ""
        said = f"step {bad.step}: loss {bad.loss}, gradient norm {bad.grad_norm}. "
        weight = not_finite(self.step.model.state_dict())
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


def _check_finite(
    folder: Path, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor]
) -> None:
    wrong = not_finite(weights) or not_a_number(moments)
    if wrong is not None:
        raise CheckpointError(
            f"checkpoint {folder} is whole, but was written with values that are not finite: "
            f"{wrong}: go on from an earlier one with --resume"
        )


def _quiet(_: str) -> None:
    """The log of all processes but the main one."""
