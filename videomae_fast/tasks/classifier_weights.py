"""Weights that fine-tuning begins from: what is kept of a head, and what stays new, said aloud."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from videomae_fast.data.labels.kinetics import SETS, kinetics_names, kinetics_rows
from videomae_fast.errors import WeightsError
from videomae_fast.interop import ModelWeights, load_into, read_rows, select_classes, to_classifier
from videomae_fast.models.classifier import VideoClassifier
from videomae_fast.tasks.initial import (
    check_finite,
    check_positions,
    free_differences,
    in_parts,
    named,
    record_of,
    weights_for,
)
from videomae_fast.tasks.labelled import Classes
from videomae_fast.training.checkpoint import Log

_K710: Final = 710


def begin_classifier_from(
    model: VideoClassifier,
    path: str | Path,
    classes: Classes,
    log: Log,
    *,
    init_scale: float,
    seed: int,
    head_index: str | None = None,
) -> dict[str, Any]:
    """Loads weights into a new classifier; what they don't hold is made new.

    Of pre-training weights the encoder is taken, head and ``fc_norm`` are new. A classifier's head
    is kept where its classes are the run's, or the rows of the run's classes where they are among
    them by name; a Kinetics-710 head gives the rows of Kinetics-400, 600 or 700.

    Args:
        model: whose config's positions are those of the weights.
        path: a file or folder as ``read_weights`` takes it, or a run's or checkpoint's folder.
        classes: of the run.
        log: is told what was kept, left out and made new.
        init_scale, seed: of a new head.
        head_index: file with the rows of the head that are the run's classes; None goes by names.

    Returns:
        The record of it, as plain values: file, layout, kind, sha256 of each file, head.

    Raises:
        WeightsError: they don't fit the model (names what is missing, unused or different), are
            not finite, have no such rows, or are for other classes of the same number.
    """
    path, weights = weights_for(path, model.config, decoder=False)
    check_positions(weights, model.config)
    record = record_of(path, weights)
    known = len(weights.changes)
    weights, head = _headed(weights, classes, init_scale, seed, head_index)
    check_finite(path, weights.state)
    state = {key: value.float() for key, value in weights.state.items()}
    load_into(model, state, origin=f"{path}: its weights")
    record["head"] = head
    log(f"began from {named(record)}")
    log(f"head: {head}")
    for change in weights.changes[known:]:
        parts = in_parts(change.state)
        log(f"{change.what}: {change.reason}" + (f": {parts}" if parts else ""))
    for difference in free_differences(weights.config, model.config):
        log(f"differs: {difference}")
    return record


def _headed(
    weights: ModelWeights, classes: Classes, init_scale: float, seed: int, head_index: str | None
) -> tuple[ModelWeights, str]:
    """A classifier's weights for the run's classes, and what became of the head."""
    if head_index is not None:
        chosen, why = _rows_by_index(weights, classes, head_index)
        return replace(select_classes(weights, chosen), labels=classes.names), why
    if weights.kind == "classifier":
        rows, why = rows_of_classes(weights, classes)
        if rows is not None:
            if rows != list(range(weights.classes)):
                weights = select_classes(weights, rows)
            return replace(weights, labels=classes.names), why
    else:
        why = f"{weights.kind} weights have none, so it is new, as fc_norm is"
        if weights.kind == "detector":
            why = "a detector's is for other classes, so it is new"
    return to_classifier(weights, classes.count, init_scale=init_scale, seed=seed), why


def _rows_by_index(
    weights: ModelWeights, classes: Classes, head_index: str
) -> tuple[list[int], str]:
    """The rows that a file names, and how many of their names are those of the run."""
    name = weights.origin.name
    if weights.kind != "classifier":
        raise WeightsError(
            f"{name}: holds {weights.kind} weights, which have no head to take the rows of "
            f"--head-index {head_index} from: leave it out"
        )
    rows = read_rows(head_index, weights.classes)
    if len(rows) != classes.count:
        raise WeightsError(
            f"{head_index}: has {len(rows)} rows, and the run has {classes.count} classes"
        )
    why = f"{len(rows)} rows of its {weights.classes}, by {head_index}"
    there = weights.labels
    if there is None and weights.classes == _K710:
        there = tuple(kinetics_names(_K710))
    if there is None or classes.names is None:
        return rows, f"{why}; names are not known on both sides and were not compared"
    other = [(own, there[row]) for own, row in zip(classes.names, rows, strict=True)]
    other = [(own, their) for own, their in other if own != their]
    if not other:
        return rows, f"{why}; all names are the same"
    if len(other) == len(rows):
        raise WeightsError(
            f"{head_index}: not one of its {len(rows)} rows has the name of the run's class, as "
            f"{other[0][1]!r} for {other[0][0]!r}: it is for another order of classes"
        )
    shown = ", ".join(f"{their!r} for {own!r}" for own, their in other[:5])
    return rows, f"{why}; {len(other)} have other names: {shown}{', ...' if other[5:] else ''}"


def rows_of_classes(weights: ModelWeights, classes: Classes) -> tuple[list[int] | None, str]:
    """Which row of a classifier's head is each class's, None where they are not; and why.

    Args:
        weights: a classifier's.
        classes: of the run.

    Raises:
        WeightsError: a Kinetics-710 head, and a run whose classes have no names.
    """
    name, there = weights.origin.name, weights.labels
    kinetics = tuple(kinetics_names(_K710))
    named = classes.names is not None and set(classes.names) <= set(kinetics)
    if there is None and weights.classes == _K710 and (named or classes.count in SETS):
        there = kinetics
        if classes.names is None:
            raise WeightsError(
                f"{name}: its head has the 710 classes of Kinetics-710, and the run has "
                f"{classes.count} without names: say that they are Kinetics' with --classes "
                f"kinetics-{classes.count}, or name them otherwise with a file"
            )
    if there is not None and classes.names is not None:
        return _rows_by_name(there, classes, classes.names)
    if weights.classes == classes.count:
        return list(range(classes.count)), (
            f"kept, as it has {classes.count} classes too; their names are not known on both "
            "sides and were not compared"
        )
    return None, f"was for {weights.classes} classes and is new for {classes.count}"


def _rows_by_name(
    there: tuple[str, ...], classes: Classes, names: tuple[str, ...]
) -> tuple[list[int] | None, str]:
    if there == names:
        return list(range(len(names))), f"kept: the same {len(names)} classes by name"
    for count in SETS:
        official = len(there) == _K710 and there == tuple(kinetics_names(_K710))
        if official and count != _K710 and names == tuple(kinetics_names(count)):
            return kinetics_rows(count), f"rows of Kinetics-{count} out of Kinetics-710, by name"
    places = {label: row for row, label in enumerate(there)}
    missing = [one for one in names if one not in places]
    if not missing:
        return [places[one] for one in names], (
            f"rows of {len(names)} of its {len(there)} classes, by name"
        )
    return None, (
        f"new: {len(missing)} of {classes.count} classes are not among its {len(there)}, as "
        f"{missing[0]!r}"
    )
