"""Where a run starts: at step 0, or from a checkpoint that is shown to be its own.

The one thing that is computed and may change is the run's length. A step's learning rate is a
function of the step and of the length, so the steps that are left get the rates of a run that had
the new length from its beginning, and no checkpoint holds a state of the schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from videomae_fast.errors import UsageError
from videomae_fast.training import checkpoint
from videomae_fast.training.checkpoint import Log, Saved
from videomae_fast.training.errors import CheckpointError
from videomae_fast.training.task import DrawnByPlace, Fingerprint


def starting_point(
    output: Path, resume: str, log: Log, check: Callable[[Saved], object]
) -> Saved | None:
    """The checkpoint to start from; None starts at step 0.

    Args:
        resume: "auto" takes the newest whole checkpoint of the output folder, "never" none, and
            else it is the path of a checkpoint folder.
        check: raises CheckpointError for one whose state can't be used.

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
        check(saved)
        return saved
    found = checkpoint.newest(parent, log, check=check)
    if found is None and there:
        raise CheckpointError(
            f"none of the {len(there)} checkpoints in {parent} is whole (see above): move them "
            "away to start from step 0"
        )
    return found


def check_same_run(
    saved: Saved, before: Fingerprint, now: Fingerprint, data: Mapping[str, Any]
) -> None:
    """Raises CheckpointError, naming the values, for a checkpoint of another run.

    before: of the run that wrote it; now, data: of the run that is to go on from it. What the
    version that wrote the checkpoint did not say of its data is not compared.
    """
    there = saved.state["data"]
    changed = [
        f"{name} was {before.values[name]!r} and is {value!r}"
        for name, value in sorted(now.values.items())
        if name not in now.free and before.values[name] != value
    ]
    changed += [
        difference
        for name, value in data.items()
        if name in there
        for difference in _differences(name, there[name], value)
    ]
    if changed:
        raise CheckpointError(
            f"checkpoint {saved.folder} is of another run: {'; '.join(changed)}. Give the old "
            "values, or another output folder. Free to change are: "
            f"{', '.join(n for n in now.values if n in now.free and not n.endswith('init'))}, "
            "and where the lists lie"
        )


def _differences(name: str, before: Any, now: Any) -> Iterator[str]:
    """What of a value is another one, in words; of one for each list, of which list."""
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now) > 1:
        for number, pair in enumerate(zip(before, now, strict=True), 1):
            yield from _differences(f"{name} of list {number}", *pair)
    elif before != now:
        yield f"{name} was {before!r} and is {now!r}"


def check_length(saved: Saved, before: Fingerprint, now: Fingerprint, log: Log) -> None:
    """Says where a run goes on with another length.

    Raises:
        UsageError: more steps are done than it is to have.
    """
    total = now.total_steps
    if saved.step > total:
        raise UsageError(
            f"{saved.step} steps are done in {saved.folder}, and the run is to have {total}: give "
            f"it --steps {saved.step} or more, or --resume an earlier checkpoint"
        )
    if before.total_steps != total:
        log(
            f"the run's length changes from {before.total_steps} to {total} steps: from step "
            f"{saved.step} on the learning rate is that of a run of the new length"
        )


def tell_drawn_by_place(
    saved: Saved, objective: object, processes: int, accumulation: int, log: Log
) -> None:
    """Says what is drawn otherwise from here on, as the run goes on in other micro-batches."""
    before, now = saved.state.get("micro_batches"), [processes, accumulation]
    if before is None or before == now or not isinstance(objective, DrawnByPlace):
        return
    drawn = objective.drawn_by_place()
    if drawn:
        log(
            f"{' and '.join(drawn)} goes by micro-batches, which were {before[0]} processes x "
            f"{before[1]} a step and are {processes} x {accumulation}: drawn otherwise from step "
            f"{saved.step} on; clips, crops and drop path are not"
        )
