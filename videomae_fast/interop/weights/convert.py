"""One weights file to another layout, with an account of every tensor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from videomae_fast.errors import WeightsError
from videomae_fast.interop.weights.files import read_weights, write_weights
from videomae_fast.interop.weights.heads import read_rows, select_classes, to_classifier
from videomae_fast.interop.weights.hugging_face_keys import BiasNames
from videomae_fast.interop.weights.layouts import SourceHints
from videomae_fast.interop.weights.model_weights import (
    Change,
    Layout,
    ModelWeights,
    with_official_eps,
)
from videomae_fast.interop.weights.parts import Amount, Tally, tally


@dataclass(frozen=True)
class ConversionOptions:
    """What a conversion shall give.

    Attributes:
        layout: of the destination.
        classes: a classifier with a new head for so many classes.
        rows: file with the rows of the classifier's head that make the new one.
        official_eps: compute with the official LayerNorm epsilon whatever the source has.
        biases: spelling of the q and v biases in Hugging Face's layout.
    """

    layout: Layout
    classes: int | None = None
    rows: Path | None = None
    official_eps: bool = False
    biases: BiasNames = "q_bias"


@dataclass(frozen=True)
class ConversionReport:
    """What went where: tensors by part of the model in the source and in the destination."""

    source: ModelWeights
    result: ModelWeights
    written: Tally
    changes: tuple[Change, ...]

    def lines(self) -> list[str]:
        """The account as text, a table and what changed."""
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
    wanted: ConversionOptions,
    told: SourceHints | None = None,
) -> ConversionReport:
    """Reads weights of any layout and writes them in another.

    Every tensor of the source is in the destination, or the account says why not; that is counted
    by part, and the file is compared bit by bit.

    Raises:
        WeightsError: nothing was written; the message says why.
    """
    if wanted.classes is not None and wanted.rows is not None:
        raise WeightsError("a new head and rows of the old one: ask for one of them")
    read = read_weights(source, told)
    result = read
    if wanted.classes is not None:
        result = to_classifier(result, wanted.classes)
    if wanted.rows is not None:
        if read.kind != "classifier":
            raise WeightsError(f"{source}: holds no classifier, so it has no head to take rows of")
        result = select_classes(result, read_rows(wanted.rows, result.classes))
    if wanted.layout == "ours" and result.kind == "encoder":
        raise WeightsError(
            f"{source}: holds an encoder alone, which no model here is; make a classifier of it "
            "(--classifier --classes N)"
        )
    if wanted.official_eps:
        result = with_official_eps(result)
    _check_nothing_lost(read, result)
    written, changes = write_weights(result, destination, wanted.layout, biases=wanted.biases)
    return ConversionReport(read, result, written, (*result.changes, *changes))


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
