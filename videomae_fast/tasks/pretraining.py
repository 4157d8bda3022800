"""Pre-training: masked clips to the pixels of what was hidden."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from videomae_fast.data.dataset import ClipDataset, clip_dataset
from videomae_fast.data.lists.sources import sources_of
from videomae_fast.data.loader.pipeline import ClipBatch, steps_per_epoch
from videomae_fast.data.loader.stats import PipelineStats
from videomae_fast.data.views.multi_scale import MultiScale
from videomae_fast.errors import UsageError
from videomae_fast.masks import Grid, Masks, MaskSpec
from videomae_fast.masks.spec import mask_spec
from videomae_fast.models.config import mae_config
from videomae_fast.models.flops import flops
from videomae_fast.models.masked_autoencoder import MAEOutput, MaskedAutoencoder
from videomae_fast.models.matmul_parameters import matmul_parameters
from videomae_fast.recipes.plain import to_plain
from videomae_fast.recipes.schema import PretrainConfig
from videomae_fast.tasks.engine import (
    config_of,
    engine_settings,
    fingerprint_of,
    micro_batches,
    set_options,
    why_not_captured,
)
from videomae_fast.tasks.initial import begin_from, check_same_beginning
from videomae_fast.tasks.listed import lists_digests
from videomae_fast.tasks.pinned import pinned
from videomae_fast.training.checkpoint import Log, Saved
from videomae_fast.training.loop import RunResult, run
from videomae_fast.training.optimizer import make_optimizer, parameter_groups
from videomae_fast.training.parallel.world import World
from videomae_fast.training.schedule import learning_rates, weight_decays
from videomae_fast.training.task import Fingerprint, MicroLoss, Place, Settings, Work

PretrainResult = RunResult


def pretrain(
    config: PretrainConfig, *, output: str | Path, resume: str = "auto", log: Log = print
) -> RunResult:
    """Pre-trains a model: the whole run, or what is left of it.

    Args:
        config: what the run is made of.
        output: folder, made where missing; what it holds then, and ``resume``, ``log`` and the
            errors, are those of :func:`videomae_fast.training.loop.run`.
        resume: "auto", "never", or a checkpoint folder to go on from.
        log: takes progress lines, in the main process only.

    Returns:
        Steps, last loss and last checkpoint.

    Raises:
        VideoMAEFastError: what stops a run; each kind says what was saved and what to do.
    """
    grid_and_masks(config)  # before any process starts on anything
    engine = settings_of(config)
    return run(
        lambda world: Pretraining(pinned(config, output, resume, world), engine, world),
        engine,
        output=output,
        resume=resume,
        log=log,
    )


def settings_of(config: PretrainConfig) -> Settings:
    """The engine's part of a configuration.

    Raises:
        UsageError: settings that contradict each other.
    """
    return engine_settings(config.data, config.optim, config.run)


def dataset_of(config: PretrainConfig) -> ClipDataset:
    """The clips of a configuration's lists.

    Raises:
        UsageError, ListError: a list can't be read, or none is named; no scale is left for crops.
    """
    return clip_dataset(
        config.data,
        sources_of(config.data),
        frames=config.model.frames,
        image_size=config.model.image_size,
        samples=config.data.samples,
        seed=config.run.seed,
        rule=_views(config),
    )


def _views(config: PretrainConfig) -> MultiScale:
    try:
        return MultiScale(config.data.scales)
    except ValueError as error:
        raise UsageError(f"data.scales: {error}") from None


def grid_and_masks(config: PretrainConfig) -> tuple[Grid, MaskSpec]:
    """The tokens of a clip and how they are masked.

    Raises:
        UsageError: model and masks don't fit together, or sizes don't divide.
    """
    try:
        grid, spec = mae_config(config.model).grid, mask_spec(config.masks)
        spec.counts(grid)
    except ValueError as error:
        raise UsageError(f"the model and masks don't fit together: {error}") from None
    return grid, spec


def build_model(config: PretrainConfig) -> MaskedAutoencoder:
    """The model with weights drawn from the seed: the same on every process and device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        model = MaskedAutoencoder(
            mae_config(config.model),
            drop_path=config.model.drop_path,
            activation_checkpointing=config.run.activation_checkpointing,
            normalize_target=config.target.normalize,
            ignore_flat_cubes=config.target.ignore_flat_cubes,
        )
    set_options(model, config.run)
    return model


class Reconstruction:
    """The loss of pre-training: mean squared error of the pixels of tokens, each weighted alike."""

    metrics: tuple[str, ...] = ()

    def __init__(self, config: PretrainConfig) -> None:
        self.optim, self.run = config.optim, config.run
        self.grid, self.spec = grid_and_masks(config)
        self.shape = mae_config(config.model)
        self.draws = False
        self.weight_per_clip = float(self.spec.counts(self.grid).loss)

    def matmul_parameters(self, model: nn.Module) -> list[str]:
        return matmul_parameters(model)

    def why_not_captured(self) -> str | None:
        return why_not_captured(self.optim)

    def work(self) -> Work:
        official = float(sum(flops(self.shape, self.spec, "official").values()))
        ours = float(sum(flops(self.shape, self.spec, "ours").values()))
        return Work(official, ours, self.run.activation_checkpointing)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        assert isinstance(model, MaskedAutoencoder)
        optim = self.optim
        groups = parameter_groups(model, optim.weight_decay, model.no_weight_decay())
        return make_optimizer(groups, betas=optim.betas, impl=optim.optimizer)

    def inputs(self, batch: ClipBatch, place: Place) -> dict[str, Tensor]:
        """frames: uint8 [B, T, H, W, 3]; ok: bool [B]; mask_seeds: int64 [B], of masks and drop
        path."""
        return {"frames": batch.frames, "ok": batch.ok, "mask_seeds": batch.mask_seeds}

    def loss(self, model: nn.Module, inputs: Mapping[str, Tensor], *, scale: float) -> MicroLoss:
        ok = inputs["ok"]
        masks = Masks.from_seeds(inputs["mask_seeds"], self.grid, self.spec)
        # Weights even where all are 1: shapes and code paths never change.
        out: MAEOutput = model(
            inputs["frames"],
            masks.weighted(ok),
            gradient_scale=scale,
            clip_seeds=inputs["mask_seeds"],
        )
        return MicroLoss(out.loss_sum, out.loss_weight, (~ok).sum(), out.backward)


class Pretraining:
    """A pre-training run's data and model.

    Args:
        config: what the run is made of.
        settings: the engine's part of it.
        world: the processes that share the run's clips.

    Raises:
        UsageError, ListError: the config, or a data list, asks for what can't be.
    """

    name = "pretrain"
    activity = "pre-trains"

    def __init__(self, config: PretrainConfig, settings: Settings, world: World) -> None:
        self._config, self.settings, self.world = config, settings, world
        self.objective = Reconstruction(config)
        self.feeding = PipelineStats(config.data.workers)
        self.dataset = dataset_of(config)
        self.steps_per_epoch = steps_per_epoch(self.dataset, config.optim.videos_per_step)
        self.learning_rate = learning_rates(config.schedule, config.optim, self.steps_per_epoch)
        self.weight_decay = weight_decays(config.schedule, config.optim, self.steps_per_epoch)
        self.fingerprint = fingerprint_of(config, self.steps_per_epoch)
        self.config = to_plain(config)
        self.data = {
            "entries": [len(source) for source in self.dataset.sources],
            **lists_digests(self.dataset.sources, world),
            "steps_per_epoch": self.steps_per_epoch,
        }

    def describe(self) -> str:
        return self.dataset.describe(self._config.optim.videos_per_step)

    def batches(self, start_step: int) -> Iterator[ClipBatch]:
        steps = range(start_step, self.fingerprint.total_steps)
        return micro_batches(self.dataset, self._config, steps, self.world, self.feeding)

    def model(self) -> MaskedAutoencoder:
        return build_model(self._config)

    def shape(self, model: nn.Module) -> dict[str, Any]:
        assert isinstance(model, MaskedAutoencoder)
        options = {
            "normalize_target": model.normalize_target,
            "ignore_flat_cubes": model.ignore_flat_cubes,
        }
        return {"model": model.config.to_dict(), "model_options": options}

    def begin(self, model: nn.Module, log: Log) -> dict[str, Any] | None:
        assert isinstance(model, MaskedAutoencoder)
        init = self._config.model.init
        return None if init is None else begin_from(model, init, log)

    def began(self, saved: Saved) -> dict[str, Any] | None:
        return check_same_beginning(saved, self._config.model.init)

    def fingerprint_of(self, saved: Saved) -> Fingerprint:
        return fingerprint_of(config_of(PretrainConfig, saved), self.steps_per_epoch)

    def epoch_done(self, done: int, model: nn.Module, log: Log) -> None:
        """Nothing is evaluated: the loss says how it goes."""
