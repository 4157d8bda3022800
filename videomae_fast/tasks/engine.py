"""What every task says of its configuration to the engine."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

import torch
from torch import nn

from videomae_fast.data.dataset import ClipDataset
from videomae_fast.data.device.stage import CropOn
from videomae_fast.data.loader.pipeline import ClipBatch, clip_loader
from videomae_fast.data.loader.stats import PipelineStats
from videomae_fast.errors import UsageError
from videomae_fast.models.config import MAEConfig, mae_config
from videomae_fast.models.fp8 import set_fp8
from videomae_fast.models.transformer import set_recompute
from videomae_fast.recipes.classification import FinetuneConfig
from videomae_fast.recipes.detection import DetectConfig
from videomae_fast.recipes.fields import settings
from videomae_fast.recipes.plain import LIST_FIELDS, PATHS, from_plain, to_plain
from videomae_fast.recipes.schema import Optim, PretrainConfig, Reading, Run
from videomae_fast.recipes.source import remote_url
from videomae_fast.training.checkpoint import Saved
from videomae_fast.training.errors import CheckpointError
from videomae_fast.training.parallel.world import World
from videomae_fast.training.schedule import total_steps
from videomae_fast.training.task import Fingerprint, Settings

Trained = PretrainConfig | FinetuneConfig | DetectConfig
T = TypeVar("T", bound=PretrainConfig | FinetuneConfig | DetectConfig)

LAST_REQUEST: Final = 60.0
"""Seconds that a store's last request, with its tries, may take beyond ``store_timeout``."""


def engine_settings(data: Reading, optim: Optim, run: Run) -> Settings:
    """The engine's part of a configuration.

    Raises:
        UsageError: settings that contradict each other.
    """
    step_mode = _step_mode(run)
    _check_recompute(run)
    if run.shard not in ("none", "1"):
        _check_sharded(optim, run)
    return Settings(
        device=run.device,
        videos_per_step=optim.videos_per_step,
        clips_per_video=data.samples,
        accumulation=optim.accumulation,
        seed=run.seed,
        precision=run.precision,
        step_mode=step_mode,
        deterministic=run.deterministic,
        shadow_weights=run.shadow_weights,
        clip_grad=optim.clip_grad,
        log_every=run.log_every,
        checkpoint_every=run.checkpoint_every,
        keep_checkpoints=run.keep_checkpoints,
        tensorboard=run.tensorboard,
        max_failed_share=data.max_failed_share,
        shard=run.shard,
        reshard=run.reshard,
        prometheus=run.prometheus,
        fp8=run.fp8,
        group_timeout=run.group_timeout,
        check_replicas_every=run.check_replicas_every,
    )


def set_options(model: nn.Module, run: Run) -> None:
    """Lets a model's blocks keep, make again and multiply what a configuration says.

    Raises:
        UsageError: the model can't have that.
    """
    set_recompute(model, run.recompute)
    set_fp8(model, run.fp8)


def why_not_captured(optim: Optim) -> str | None:
    """Why a step with these settings can't be recorded as one CUDA graph, or None."""
    if optim.optimizer == "apex":
        return "apex's optimizer was never captured"
    if optim.weight_decay_end is not None:
        return "AdamW's kernel takes the weight decay, which changes each step, from the host"
    return None


def crop_on(data: Reading, device: torch.device) -> CropOn:
    """Where clips are cropped, "auto" resolved."""
    if data.crop_on == "auto":
        return "device" if device.type == "cuda" else "worker"
    return data.crop_on


def device_decoder(data: Reading) -> str | None:
    """The device's decoder, None where loader processes decode."""
    return None if data.device_decoder == "none" else data.device_decoder


def micro_batches(
    dataset: ClipDataset, config: Trained, steps: range, world: World, stats: PipelineStats
) -> Iterator[ClipBatch]:
    """This process's micro-batches of these steps.

    Raises:
        UsageError: the other processes would not wait as long as this one may for its store.
    """
    data, optim = config.data, config.optim
    _check_patience(dataset, config, world)
    return clip_loader(
        dataset,
        videos_per_step=optim.videos_per_step,
        micro_batches=optim.accumulation,
        start_step=steps.start,
        total_steps=steps.stop,
        rank=world.rank,
        world=world.size,
        workers=data.workers,
        device=world.device,
        crop_on=crop_on(data, world.device),
        device_decoder=device_decoder(data),
        time_limit=data.decode_timeout,
        stats=stats,
        stopped=world.gives_up,
    )


def fingerprint_of(config: Trained, per_epoch: int) -> Fingerprint:
    """What a run with this configuration has in common with those that it may go on from.

    Fields that are declared so may change when a run is resumed; where the lists lie may too, not
    their entries. ``model.init`` may be left out then, since it is not read again.

    per_epoch: optimizer steps of an epoch.
    """
    nested = to_plain(config)
    known = settings(type(config))
    values = {name: nested[one.section][one.field] for name, one in known.items()}
    for lists in LIST_FIELDS.keys() & values.keys():
        values[lists] = [  # they may lie elsewhere
            {key: value for key, value in source.items() if key not in PATHS}
            for source in values[lists]
        ]
    free = frozenset(name for name, setting in known.items() if setting.option.resumable)
    return Fingerprint(values, free, total_steps(config.schedule, per_epoch))


def config_of(kind: type[T], saved: Saved) -> T:
    """The config of the run that wrote a checkpoint; newer fields have their defaults.

    Raises:
        CheckpointError: it can't be read, or what the run read of its data.
    """
    try:
        if not isinstance(saved.state["data"], Mapping):
            raise TypeError("data is no object")
        return from_plain(kind, saved.state["config"])
    except (UsageError, ValueError, KeyError, TypeError, AttributeError) as error:
        told = str(error) if isinstance(error, UsageError) else repr(error)
        raise CheckpointError(
            f"checkpoint {saved.folder}: its config can't be read ({told}); it was written by "
            f"{saved.state.get('versions')}"
        ) from error


def _step_mode(run: Run) -> str:
    """The step mode, also in its old spelling.

    Raises:
        UsageError: both spellings say different things.
    """
    if not run.compile:
        return run.step_mode
    if run.step_mode not in ("auto", "compiled"):
        raise UsageError(
            "compile is the old spelling of step_mode compiled, and step_mode is "
            f"{run.step_mode}: leave compile out"
        )
    warnings.warn(
        "compile is the old spelling of step_mode compiled (--step-mode compiled), and goes with "
        "the next version",
        FutureWarning,
        stacklevel=4,
    )
    return "compiled"


def _check_patience(dataset: ClipDataset, config: Trained, world: World) -> None:
    """Raises UsageError where a process that waits for its store would be taken for one that hangs:
    the others wait for it before each step, and saving the run needs all."""
    longest, patience = config.data.store_timeout, config.run.group_timeout
    if world.size == 1 or longest + LAST_REQUEST <= patience:
        return
    remote = [remote_url(loaded.source.path) for loaded in dataset.sources]
    for url in filter(None, remote):
        raise UsageError(
            f"store_timeout ({longest:g} s) for {url}: a process may wait for its store so long "
            f"and {LAST_REQUEST:g} s for a last request, and the others wait for it only "
            f"group_timeout ({patience:g} s): make --store-timeout less, or --group-timeout more"
        )


def _check_sharded(optim: Optim, run: Run) -> None:
    """Raises UsageError where sharded weights leave no place for something."""
    if optim.optimizer == "apex":
        raise UsageError(
            "optimizer apex can't work on sharded weights, of which its kernels know nothing: use "
            "optimizer adamw, or shard none"
        )
    if run.shadow_weights:
        raise UsageError(
            "shadow_weights would be a second bf16 copy: sharded weights are cast "
            "already, when they are gathered, and their gradients are averaged in fp32. Leave "
            "shadow_weights out, or use shard none"
        )


def _check_recompute(run: Run) -> None:
    """Raises UsageError where `recompute` would do nothing."""
    if run.recompute and run.activation_checkpointing:
        raise UsageError(
            "recompute and activation_checkpointing exclude each other: the second makes whole "
            "blocks again"
        )


def shape_of(config: FinetuneConfig | DetectConfig) -> MAEConfig:
    """The model's shape, with the clip size and length that its positions are for.

    Raises:
        UsageError: sizes that don't divide, or positions that can't be recomputed.
    """
    model = config.model
    trained: dict[str, Any] = {
        "image_size": model.trained_image_size,
        "frames": model.trained_frames,
    }
    try:
        clips = mae_config(model)
        shape = replace(clips, **{k: v for k, v in trained.items() if v is not None})
    except ValueError as error:
        raise UsageError(f"the model can't be: {error}") from None
    recomputed = isinstance(config, FinetuneConfig) and config.model.other_grids == "recomputed"
    if shape.learned_positions and recomputed and shape.grid != clips.grid:
        raise UsageError(
            f"learned positions are for {shape.grid}, the clips have {clips.grid}: they can be "
            "interpolated, but not recomputed; leave --other-grids recomputed out"
        )
    return shape
