"""Whether the weights of a plan's stages fit one another, seen before anything is computed."""

from __future__ import annotations

from typing import Final

from videomae_fast.data.labels.names import class_names
from videomae_fast.errors import UsageError
from videomae_fast.models.config import MAEConfig, mae_config
from videomae_fast.recipes.classification import FinetuneConfig
from videomae_fast.recipes.plan import Plan, Stage
from videomae_fast.recipes.schema import PretrainConfig
from videomae_fast.tasks.engine import shape_of
from videomae_fast.tasks.initial import differences_of_shape
from videomae_fast.tasks.pretraining import grid_and_masks

_POSITIONS: Final = ("image_size", "frames")


def check_flow(plan: Plan) -> None:
    """Checks that each stage's model can be, and fits the weights that it begins from.

    Raises:
        UsageError: names file, stage and field, with the remedy.
    """
    for stage in plan.stages:
        try:
            _check(plan, stage)
        except UsageError as error:
            raise UsageError(f"{plan.file}: stage {stage.name!r}: {error}") from None


def _check(plan: Plan, stage: Stage) -> None:
    if isinstance(stage.config, PretrainConfig):
        grid_and_masks(stage.config)
    here = shape(stage)
    if here is None or stage.source is None:
        return
    source = plan[stage.source]
    there = shape(source)
    assert there is not None
    both = isinstance(stage.config, PretrainConfig) and isinstance(source.config, PretrainConfig)
    if wrong := differences_of_shape(there, here, decoder=both):
        raise UsageError(f"the weights of stage {source.name!r} don't fit: {'; '.join(wrong)}")
    if not isinstance(stage.config, FinetuneConfig):
        return
    for name in _POSITIONS:
        theirs, ours = getattr(there, name), getattr(here, name)
        if theirs != ours:
            size = f"[{theirs[0]}, {theirs[1]}]" if isinstance(theirs, tuple) else theirs
            raise UsageError(
                f"the positions of stage {source.name!r} are for {name} {theirs}, and this stage's "
                f"for {ours}: give set.model.trained_{name} = {size}, so that they are stretched"
            )


def shape(stage: Stage) -> MAEConfig | None:
    """The shape of the model that a stage trains, with the positions that its weights are for."""
    if isinstance(stage.config, PretrainConfig):
        return mae_config(stage.config.model)
    return shape_of(stage.config) if isinstance(stage.config, FinetuneConfig) else None


def head_of(plan: Plan, stage: Stage) -> str:
    """What becomes of the head between two stages, as far as names of classes tell."""
    config = stage.config
    if not isinstance(config, FinetuneConfig):
        return ""
    if stage.source is None:
        return "new" if config.model.init is None else "by the weights"
    if config.model.head_index is not None:
        return f"rows by {config.model.head_index}"
    source = plan[stage.source].config
    if not isinstance(source, FinetuneConfig):
        return "new"
    if config.data.classes is None or source.data.classes is None:
        return "kept if the number of classes is the same, else new"
    here, there = class_names(config.data.classes), set(class_names(source.data.classes))
    missing = [name for name in here if name not in there]
    if missing:
        return f"new: {len(missing)} of {len(here)} classes are not in {stage.source}'s"
    return f"{len(here)} rows of {len(there)}, by name"
