"""The versions of stores that a run reads: settled when it begins, and the same when it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from videomae_fast.data.store.opening import is_store, open_store
from videomae_fast.recipes.classification import FinetuneConfig
from videomae_fast.recipes.fields import settings
from videomae_fast.recipes.plain import LIST_FIELDS, changed
from videomae_fast.recipes.schema import PretrainConfig
from videomae_fast.recipes.source import Source
from videomae_fast.training.checkpoint import checkpoints, read
from videomae_fast.training.errors import CheckpointError
from videomae_fast.training.parallel.world import World

C = TypeVar("C", bound=PretrainConfig | FinetuneConfig)


def pinned(config: C, output: str | Path, resume: str, world: World) -> C:
    """A configuration in which every store has a version: that of the run that goes on, or else the
    newest. Processes agree on it, although the store may grow while they start.

    Args:
        config: what the run is made of.
        output, resume: as :func:`videomae_fast.training.loop.run` has them.
        world: the processes of the run.

    Raises:
        StoreError: a store can't be read.
    """
    fields = {
        name: getattr(config.data, name.partition(".")[2])
        for name in LIST_FIELDS.keys() & settings(type(config)).keys()
    }
    open_ends = any(_is_open(source) for lists in fields.values() for source in lists)
    if not open_ends:
        return config
    chosen: dict[str, tuple[Source, ...]] | None = None
    if world.is_main:
        before = _before(Path(output), resume)
        chosen = {name: _settled(lists, before.get(name)) for name, lists in fields.items()}
    return changed(config, world.from_main(chosen))


def settled(sources: Sequence[Source], world: World) -> tuple[Source, ...]:
    """Sources in which every store has a version, the newest where none is given: the same in all
    processes.

    Raises:
        StoreError: a store can't be read.
    """
    chosen: tuple[Source, ...] = world.from_main(
        _settled(tuple(sources), None) if world.is_main else None
    )
    return chosen


def _is_open(source: Source) -> bool:
    return source.version is None and is_store(source.path)


def _settled(lists: tuple[Source, ...], before: Any) -> tuple[Source, ...]:
    """Lists with a version for each store. before: of the run that goes on, as plain values."""
    versions = [None] * len(lists)
    if isinstance(before, list) and len(before) == len(lists):
        versions = [one.get("version") if isinstance(one, dict) else None for one in before]
    return tuple(
        replace(source, version=version or open_store(source.path).version)
        if _is_open(source)
        else source
        for source, version in zip(lists, versions, strict=True)
    )


def _before(output: Path, resume: str) -> dict[str, Any]:
    """The lists of the run that goes on, as plain values by field; none where none does.

    All checkpoints of a run name the same versions: any that can be read will do, and whether one
    is whole is looked at later.
    """
    if resume == "never":
        return {}
    folders = checkpoints(output / "checkpoints") if resume == "auto" else [Path(resume)]
    for folder in folders:
        try:
            data = read(folder, verify=False).state["config"]["data"]
            return {name: data.get(name.partition(".")[2]) for name in LIST_FIELDS}
        except (CheckpointError, KeyError, TypeError, AttributeError):
            continue
    return {}
