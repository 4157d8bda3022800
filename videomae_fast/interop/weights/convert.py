"""One weights file to another layout: read, changed, checked, written, and reported on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from videomae_fast.errors import WeightsError
from videomae_fast.interop.weights.check import check_finite
from videomae_fast.interop.weights.heads import (
    HeadNames,
    HeadRows,
    read_rows,
    rows_named,
    select_classes,
    to_classifier,
    with_labels,
)
from videomae_fast.interop.weights.layouts.hugging_face import BiasNames
from videomae_fast.interop.weights.model_weights import (
    Change,
    Layout,
    ModelWeights,
    with_official_eps,
)
from videomae_fast.interop.weights.parts import Amount, Tally, tally
from videomae_fast.interop.weights.read import read_weights
from videomae_fast.interop.weights.shapes import SourceHints
from videomae_fast.interop.weights.write import write_weights


@dataclass(frozen=True)
class ConversionOptions:
    """What a conversion shall give.

    Attributes:
        layout: of the destination.
        classes: a classifier with a new head for so many classes.
        rows: of the classifier's head that make the new one: a file with their numbers, the numbers
            with the size of the head that they are for, or the classes' names.
        official_eps: compute with the official LayerNorm epsilon whatever the source has.
        biases: spelling of the q and v biases in Hugging Face's layout.
        labels: names of the classes of the result, or a file with one a line.
        licence: of the weights, for the model card of Hugging Face's layout.
    """

    layout: Layout
    classes: int | None = None
    rows: Path | HeadRows | HeadNames | None = None
    official_eps: bool = False
    biases: BiasNames = "q_bias"
    labels: Path | Sequence[str] | None = None
    licence: str | None = None


@dataclass(frozen=True)
class ConversionReport:
    """What went where: tensors by part of the model in the source and in the destination.

    Attributes:
        source: the weights as read.
        result: the weights as written, by official names.
        written: tensors and values by part of the model, by the destination's names.
        changes: what is not the same, and why.
    """

    source: ModelWeights
    result: ModelWeights
    written: Tally
    changes: tuple[Change, ...]

    def lines(self) -> list[str]:
        """The report as text, a table and what changed."""
        source, result = self.source, self.result
        config = result.config
        total = sum(amount.values for amount in self.written.values())
        shown = [
            f"source   {source.origin.name}: {source.origin.layout}, {source.kind}",
            f"model    width {config.width}, depth {config.depth}, {config.heads} heads, patch "
            f"{config.patch_size}, {config.frames} frames of {config.image_size}, "
            f"{total:,} values in {_dtypes(result)}",
            "",
            f"{'part':<20}{'source':>22}{'destination':>22}",
        ]
        shown += [
            f"{part:<20}{_amount(source.origin.tally.get(part)):>22}"
            f"{_amount(self.written.get(part)):>22}"
            for part in dict.fromkeys((*source.origin.tally, *self.written))
        ]
        for change in self.changes:
            parts = ", ".join(tally(change.state))
            shown.append(f"{change.what:<9} {parts + ': ' if parts else ''}{change.reason}")
        return shown


def convert(
    source: str | Path,
    destination: str | Path,
    options: ConversionOptions,
    hints: SourceHints | None = None,
) -> ConversionReport:
    """Reads weights of any layout and writes them in another.

    Every tensor of the source is in the destination, or the report says why not; that is counted
    by part, and the file is compared bit by bit.

    Args:
        source: a file or folder, as :func:`~videomae_fast.interop.read_weights` takes it.
        destination: a new file or folder, as :func:`~videomae_fast.interop.write_weights` takes it.
        options: the layout, and what is changed on the way.
        hints: what official files don't say.

    Returns:
        What went where, and what is not the same.

    Raises:
        WeightsError: nothing was written; the message says why.
    """
    if options.classes is not None and options.rows is not None:
        raise WeightsError("a new head and rows of the old one: ask for one of them")
    read = read_weights(source, hints)
    result = changed(read, options)
    _check_nothing_lost(read, result)
    check_finite(result.state, origin=read.origin.name)
    written, changes = write_weights(
        result, destination, options.layout, biases=options.biases, licence=options.licence
    )
    return ConversionReport(read, result, written, (*result.changes, *changes))


def changed(weights: ModelWeights, options: ConversionOptions) -> ModelWeights:
    """The weights with the head, the names of classes and the epsilon that are asked for.

    Args:
        weights: as read.
        options: what to change.

    Returns:
        The weights to write, with what changed told.

    Raises:
        WeightsError: the weights can't be changed so.
    """
    if options.classes is not None:
        weights = to_classifier(weights, options.classes)
    if options.rows is not None:
        name = weights.origin.name
        if weights.kind != "classifier":
            raise WeightsError(f"{name}: holds no classifier, so it has no head to take rows of")
        weights = select_classes(weights, _rows_for(weights, options.rows))
    if options.labels is not None:
        weights = with_labels(weights, options.labels)
    return with_official_eps(weights) if options.official_eps else weights


def _rows_for(weights: ModelWeights, asked: Path | HeadRows | HeadNames) -> Sequence[int]:
    if isinstance(asked, Path):
        return read_rows(asked, weights.classes)
    if isinstance(asked, HeadNames):
        return rows_named(weights, asked)
    if asked.of != weights.classes:
        raise WeightsError(
            f"{weights.origin.name}: its head has {weights.classes} rows, and the rows asked for "
            f"are of a head of {asked.of}"
        )
    return asked.rows


def _check_nothing_lost(source: ModelWeights, result: ModelWeights) -> None:
    """Source − left out + made new = result, in values, for each part of the model.

    Raises:
        WeightsError: it is not so, which is a fault of this package.
    """
    balance = {part: amount.values for part, amount in source.origin.tally.items()}
    for change in result.changes:
        sign = 1 if change.what == "made new" else -1
        for part, amount in tally(change.state).items():
            balance[part] = balance.get(part, 0) + sign * amount.values
    found = {part: amount.values for part, amount in tally(result.state).items()}
    wrong = [
        f"{part} ({balance.get(part, 0)} values expected, {found.get(part, 0)} found)"
        for part in dict.fromkeys((*balance, *found))
        if balance.get(part, 0) != found.get(part, 0)
    ]
    if wrong:
        raise WeightsError(f"{source.origin.name}: lost on the way: {', '.join(wrong)}")


def _amount(amount: Amount | None) -> str:
    return "-" if amount is None else f"{amount.tensors} ({amount.values:,})"


def _dtypes(weights: ModelWeights) -> str:
    return ", ".join(sorted({str(v.dtype).removeprefix("torch.") for v in weights.state.values()}))
