"""Pre-training weights to a classifier's, and heads for fewer classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from videomae_fast.errors import WeightsError
from videomae_fast.interop.reading.refusal import refused
from videomae_fast.interop.weights.model_weights import HEADED, Change, ModelWeights
from videomae_fast.placed_json import placed_json

_SHOWN: Final = 40  # characters of what is no number


@dataclass(frozen=True)
class HeadRows:
    """Rows of a classifier's head, one for each class of a new one.

    Attributes:
        rows: their numbers.
        of: rows of the head that they are meant for.
    """

    rows: Sequence[int]
    of: int


@dataclass(frozen=True)
class HeadNames:
    """Classes of a head by name, one for each class of a new one.

    Attributes:
        names: of the new head's classes.
        known: names of the old one's by row, where its files don't say them; they are taken only
            for a head of as many rows.
    """

    names: Sequence[str]
    known: Sequence[str] | None = None


def rows_named(weights: ModelWeights, asked: HeadNames) -> list[int]:
    """Which rows of a head are the classes of these names.

    Raises:
        WeightsError: nobody names the head's classes, or it has none of a name (says which).
    """
    there = weights.labels
    if there is None and asked.known is not None and len(asked.known) == weights.classes:
        there = tuple(asked.known)
    if there is None:
        raise WeightsError(
            f"{weights.origin.name}: does not name the {weights.classes} classes of its head: take "
            "rows by number (--head-index)"
        )
    places = {name: row for row, name in enumerate(there)}
    missing = [name for name in asked.names if name not in places]
    if missing:
        raise WeightsError(
            f"{weights.origin.name}: {len(missing)} of {len(asked.names)} classes are not among "
            f"the {len(there)} of its head, as {missing[0]!r}"
        )
    return [places[name] for name in asked.names]


def to_classifier(
    weights: ModelWeights, classes: int, *, init_scale: float = 0.001, seed: int = 0
) -> ModelWeights:
    """The encoder with a new head: where fine-tuning starts.

    Of pre-training weights the decoder is left out, and the encoder's `norm`, which the classifier
    replaces by an `fc_norm` after pooling; that one begins as the identity, and so it does where a
    detector's `norm` is left out. A classifier keeps its `fc_norm` and gets another head. The new
    head is truncated normal with standard deviation ``0.02 * init_scale``, its biases 0.

    Args:
        weights: of any kind.
        classes: rows of the new head.
        init_scale: factor on the head's initial weights.
        seed: that the head is drawn from.

    Returns:
        A classifier's weights, in the dtype of the first tensor for what is new.

    Raises:
        WeightsError: classes is not positive.

    Source: run_class_finetuning.py of the official V2 code.
    """
    if classes < 1:
        raise WeightsError(f"a classifier needs 1 class or more, not {classes}")
    width = weights.config.width
    like = next(iter(weights.state.values()))
    kept: dict[str, Tensor] = {}
    dropped: dict[str, dict[str, Tensor]] = {}
    for key, value in weights.state.items():
        if key.startswith("head."):
            reason = "replaced by a head for other classes"
        elif weights.kind == "detector" and key.startswith("norm."):
            reason = "a detector's norm of every token; the classifier has its own after pooling"
        elif weights.kind in HEADED:
            reason = ""
        elif key.startswith("encoder.norm."):
            reason = "the classifier has its own norm after pooling, fc_norm"
        else:
            reason = "" if key.startswith("encoder.") else "only pre-training has a decoder"
        if reason:
            dropped.setdefault(reason, {})[key] = value
        else:
            kept[key.removeprefix("encoder.")] = value
    head = torch.empty(classes, width)
    nn.init.trunc_normal_(head, std=0.02, generator=torch.Generator().manual_seed(seed))
    new = {"head.weight": head * init_scale, "head.bias": torch.zeros(classes)}
    if weights.kind != "classifier":
        new = {"fc_norm.weight": torch.ones(width), "fc_norm.bias": torch.zeros(width)} | new
    new = {key: value.to(like.dtype) for key, value in new.items()}
    return weights.with_changes(
        *(Change("left out", reason, state) for reason, state in dropped.items()),
        Change("made new", f"for {classes} classes, drawn from seed {seed}", new),
        kind="classifier",
        config=replace(weights.config, encoder_norm=True),  # which classifiers don't have anyway
        state={**kept, **new},
        options={},
        labels=None,
    )


def select_classes(weights: ModelWeights, rows: Sequence[int]) -> ModelWeights:
    """The classifier for some of its classes: class i of the result is row ``rows[i]``.

    So a Kinetics-710 head becomes one for Kinetics-400, 600 or 700, with the official index files.

    Args:
        weights: a classifier's.
        rows: of its head; names of classes go with their rows.

    Returns:
        A classifier's weights with a head of [len(rows), width].

    Raises:
        WeightsError: no classifier, or a row that it does not have.
    """
    name = weights.origin.name
    if weights.kind != "classifier":
        raise WeightsError(f"{name}: holds no classifier, so there is no head to choose rows of")
    wrong = [row for row in rows if not 0 <= row < weights.classes]
    if wrong:
        raise WeightsError(f"{name}: its head has rows 0 to {weights.classes - 1}, not {wrong[0]}")
    if not rows:
        raise WeightsError(f"{name}: no rows of its head are asked for")
    index = torch.tensor(rows)
    old = {key: weights.state[key] for key in ("head.weight", "head.bias")}
    unused = sorted(set(range(weights.classes)) - set(rows))
    changes = [
        Change("kept", f"{len(rows)} of the {weights.classes} classes of its head"),
        Change("left out", "rows of other classes", {k: v[unused] for k, v in old.items()}),
    ]
    return weights.with_changes(
        *(changes if unused else changes[:1]),
        state={**weights.state, **{key: value[index] for key, value in old.items()}},
        labels=weights.labels and tuple(weights.labels[row] for row in rows),
    )


def read_rows(path: str | Path, classes: int) -> list[int]:
    """Rows of a head, one per class: an official ``label_710to400.json``, or one integer a line.

    Args:
        path: of the file, a JSON list or lines of text.
        classes: rows that the head has.

    Returns:
        A row number for each class of the new head.

    Raises:
        WeightsError: with file and line (and the number of a JSON entry): not an integer, out of
            range, or a row that an earlier class already has.
    """
    path = Path(path)
    with refused(path, "can't be read", "give a file of row numbers"):
        text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        with refused(path, "not a JSON list", "give a file of row numbers"):
            given = placed_json(text.encode())
        entries = [
            (f"line {line} (entry {i})", each)
            for i, (line, each) in enumerate(zip(given.lines, given, strict=True), 1)
        ]
    else:
        lines = enumerate(text.splitlines(), 1)
        entries = [(f"line {i}", _as_int(line)) for i, line in lines if line.strip()]
    first: dict[int, str] = {}
    for place, row in entries:
        if not isinstance(row, int) or isinstance(row, bool):
            raise WeightsError(f"{path}, {place}: {repr(row)[:_SHOWN]} is not a row number")
        if not 0 <= row < classes:
            raise WeightsError(f"{path}, {place}: the head has rows 0 to {classes - 1}, not {row}")
        if row in first:
            raise WeightsError(f"{path}, {place}: row {row} is that of {first[row]} already")
        first[row] = place
    if not entries:
        raise WeightsError(f"{path}: holds no row numbers")
    return list(first)


def with_labels(weights: ModelWeights, labels: Path | Sequence[str]) -> ModelWeights:
    """The classifier with names of its classes, where its files didn't say them.

    Args:
        weights: a classifier's.
        labels: names in the order of the head, or a text file with one a line.

    Raises:
        WeightsError: no classifier, another number of names than classes, two classes of one name,
            an empty one, or other names than the weights have already.
    """
    if weights.kind != "classifier":
        raise WeightsError(f"{weights.origin.name}: holds no classifier, so no classes to name")
    path = labels if isinstance(labels, Path) else "names of classes"
    if isinstance(labels, Path):
        with refused(path, "can't be read", "give a text file with one class name a line"):
            labels = [line.strip() for line in labels.read_text(encoding="utf-8-sig").splitlines()]
    first: dict[str, int] = {}
    for number, label in enumerate(labels, 1):
        if not label:
            raise WeightsError(f"{path}, line {number}: is empty; each line names a class")
        if label in first:
            raise WeightsError(f"{path}, line {number}: {label[:_SHOWN]!r} is line {first[label]}")
        first[label] = number
    if len(labels) != weights.classes:
        raise WeightsError(
            f"{path}: names {len(labels)} classes, the head has {weights.classes} rows"
        )
    if weights.labels not in (None, tuple(labels)):
        raise WeightsError(
            f"{path}: {weights.origin.name} names its classes itself, and otherwise; leave "
            "--labels out"
        )
    return replace(weights, labels=tuple(labels))


def _as_int(line: str) -> int | str:
    word = line.strip()
    return int(word) if word.removeprefix("-").isdecimal() and len(word) < _SHOWN else word
