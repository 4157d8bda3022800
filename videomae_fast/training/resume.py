"""Where a run starts: at step 0, or from a checkpoint that is shown to be its own.

The one thing that is computed and may change is the run's length. A step's learning rate is a
function of the step and of the length, so the steps that are left get the rates of a run that had
the new length from its beginning, and no checkpoint holds a state of the schedule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from videomae_fast.errors import UsageError
from videomae_fast.training import checkpoint
from videomae_fast.training.checkpoint import Log, Saved
from videomae_fast.training.config import PretrainConfig
from videomae_fast.training.errors import CheckpointError

RESUMABLE = tuple(one.name for one in fields(PretrainConfig) if one.metadata["resumable"])
"""Fields that may change when a run is resumed; those of `data` may too, but for the entries.

``init`` may be left out then, since it is not read again.
"""


def starting_point(output: Path, resume: str, log: Log) -> Saved | None:
    """The checkpoint to start from; None starts at step 0.

    Args:
        resume: "auto" takes the newest whole checkpoint of the output folder, "never" none, and
            else it is the path of a checkpoint folder.

    Raises:
        CheckpointError: the output folder has a run in it but is not to be resumed; the path is no
            whole checkpoint; or none of the folder's checkpoints is whole.
    """
    parent = output / "checkpoints"
    there = checkpoint.checkpoints(parent)
    if resume == "never":
        if there or (output / "metrics.jsonl").exists():
            raise CheckpointError(
                f"{output} already holds a run: take another output folder, move this one away, "
                "or go on with it (--resume auto)"
            )
        return None
    if resume != "auto":
        saved = checkpoint.read(Path(resume))
        config_of(saved)
        return saved
    found = checkpoint.newest(parent, log, check=config_of)
    if found is None and there:
        raise CheckpointError(
            f"none of the {len(there)} checkpoints in {parent} is whole (see above): move them "
            "away to start from step 0"
        )
    return found


def config_of(saved: Saved) -> PretrainConfig:
    """The config of the run that wrote a checkpoint; newer fields have their defaults.

    Raises:
        CheckpointError: it can't be read, or what the run read of its data.
    """
    try:
        if not isinstance(saved.state["data"], Mapping):
            raise TypeError("data is no object")
        return PretrainConfig.from_dict(saved.state["config"])
    except (UsageError, ValueError, KeyError, TypeError, AttributeError) as error:
        told = str(error) if isinstance(error, UsageError) else repr(error)
        raise CheckpointError(
            f"checkpoint {saved.folder}: its config can't be read ({told}); it was written by "
            f"{saved.state.get('versions')}"
        ) from error


def check_same_run(saved: Saved, config: PretrainConfig, data: Mapping[str, Any]) -> None:
    """Raises CheckpointError, naming the fields, for a checkpoint of another run."""
    old, new = config_of(saved).to_dict(), config.to_dict()
    for values in (old, new):
        values["data"] = [
            {key: value for key, value in source.items() if key not in ("path", "root")}
            for source in values["data"]
        ]
    changed = [
        f"{name} was {old[name]!r} and is {value!r}"
        for name, value in sorted(new.items())
        if name not in RESUMABLE and old[name] != value
    ]
    changed += [
        f"{name} was {saved.state['data'].get(name)!r} and is {value!r}"
        for name, value in data.items()
        if saved.state["data"].get(name) != value
    ]
    if changed:
        raise CheckpointError(
            f"checkpoint {saved.folder} is of another run: {'; '.join(changed)}. Give the old "
            "values, or another output folder. Free to change are: "
            f"{', '.join(name for name in RESUMABLE if name != 'init')}, and where the lists lie"
        )


def check_length(saved: Saved, config: PretrainConfig, steps_per_epoch: int, log: Log) -> None:
    """Says where a run goes on with another length.

    Raises:
        UsageError: more steps are done than it is to have.
    """
    total = config.total_steps(steps_per_epoch)
    before = config_of(saved).total_steps(steps_per_epoch)
    if saved.step > total:
        raise UsageError(
            f"{saved.step} steps are done in {saved.folder}, and the run is to have {total}: give "
            f"it --steps {saved.step} or more, or --resume an earlier checkpoint"
        )
    if before != total:
        log(
            f"the run's length changes from {before} to {total} steps: from step {saved.step} on "
            "the learning rate is that of a run of the new length"
        )
