"""The rows of the study's tables, and the order in which their cells are worth doing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.gestures.arms import Arm

CLIPS, MOTIONS = "clips", "motions"
"""The two sets: a labelled one in folds, and rendered motions, of which there is any number."""

WORTH, ENCODER, DECODER, LOSS, DEPTH, LABELS = (
    "what pre-training is worth", "encoder mask", "decoder mask", "loss", "decoder depth", "labels",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A row: how it differs from the base, which is fine-tuned after tube masks and running cells.

    Attributes:
        set: of :data:`CLIPS` and :data:`MOTIONS`.
        table: that it stands in.
        name: in the table.
        arm: what is made of the clips.
        pretraining: fields of pre-training that differ from the settings.
        labels: share of the training labels (below 1) or labels a class (1 or more, an int);
            None: all.
        long: fine-tuning with the multiply-adds of pre-training as well.
    """

    set: str
    table: str
    name: str
    arm: Arm = "pre-trained"
    pretraining: dict[str, Any] = field(default_factory=dict, hash=False)
    labels: float | int | None = None
    long: bool = False

    @property
    def slug(self) -> str:
        """For file names: one of each row of a set."""
        words = re.sub(r"[.%']", "", f"{self.table} {self.name}")
        return "-".join(words.replace(",", "").lower().split())


def _encoder(kind: str, ratio: float) -> Row:
    fields = {"masks.encoder": kind, "masks.encoder_ratio": ratio}
    return Row(CLIPS, ENCODER, f"{kind} {ratio:g}", pretraining=fields)


def _decoder(kind: str, ratio: float | None) -> Row:
    fields: dict[str, Any] = {"masks.decoder": kind}
    if ratio is not None:
        fields["masks.decoder_ratio"] = ratio
    return Row(CLIPS, DECODER, kind if ratio is None else f"{kind} {ratio:g}", pretraining=fields)


BASE = Row(CLIPS, WORTH, "pre-trained")
SCRATCH = Row(CLIPS, WORTH, "from scratch, all compute", "from scratch", long=True)
LONG = Row(CLIPS, WORTH, "pre-trained, then all compute again", long=True)
SHORT = Row(CLIPS, WORTH, "from scratch, fine-tuning's steps", "from scratch")
PROBES = (
    Row(CLIPS, WORTH, "attentive probe", "attentive probe"),
    Row(CLIPS, WORTH, "linear probe", "linear probe"),
)
BASE_IN = {
    ENCODER: "tube 0.75", DECODER: "running-cell 0.5", LOSS: "decoded and invisible", DEPTH: "2",
}  # fmt: skip
"""What the base is called in the tables of what can differ from it."""

# Tube .75 and running cell .5 are the base. Frame .9 leaves nothing of four time slots
ENCODERS = (_encoder("random", 0.75), _encoder("frame", 0.75), _encoder("tube", 0.9),
            _encoder("random", 0.9))  # fmt: skip
# The paper's rows: of running cells alone it varies the ratio
DECODERS = (
    _decoder("none", None), _decoder("frame", 0.5), _decoder("random", 0.5),
    _decoder("running-cell", 0.75), _decoder("running-cell", 0.25),
)  # fmt: skip
LOSSES = (Row(CLIPS, LOSS, "all decoded", pretraining={"masks.loss_over": "all"}),)
DEPTHS = tuple(
    Row(CLIPS, DEPTH, f"{depth}", pretraining={"model.decoder_depth": depth}) for depth in (1, 4)
)
FRACTIONS = tuple(
    Row(CLIPS, LABELS, f"{100 * share:.0f}% of the labels, {arm}", arm, labels=share,
        long=arm == "from scratch")
    for share in (0.5, 0.25) for arm in ("pre-trained", "from scratch")
)  # fmt: skip
# Whole frames: in trials, tubes and cubes taught a small model little but what stands still
FEW = tuple(
    Row(MOTIONS, LABELS, f"{count} a class, {arm}", arm, {"masks.encoder": "frame"}, count,
        long=arm == "from scratch")
    for count in (25, 5, 1) for arm in ("pre-trained", "from scratch")
)  # fmt: skip
ROWS: tuple[Row, ...] = (
    BASE, SCRATCH, LONG, SHORT, *PROBES, *ENCODERS, *DECODERS, *LOSSES, *DEPTHS, *FRACTIONS, *FEW,
)  # fmt: skip

SPOKEN_OF = (BASE, SCRATCH, *FEW, LONG)
"""The rows that the text speaks of, which have every seed; the others have the first."""


@dataclass(frozen=True)
class Cell:
    """One run of a row: which fold is scored, and the seed of everything that is drawn."""

    row: Row
    fold: int
    seed: int

    def __str__(self) -> str:
        row = self.row
        return f"{row.set}, {row.table}: {row.name}, fold {self.fold}, seed {self.seed}"


def cells(folds: dict[str, Sequence[int]], seeds: Sequence[int]) -> list[Cell]:
    """All cells, those that say most first.

    First what pre-training is worth on both sets, with one seed; then the other rows; then further
    seeds of the rows that the text speaks of.

    Args:
        folds: of each set that there is.
        seeds: of the rows that the text speaks of; the others have the first of them.
    """
    others = [row for row in ROWS if row not in SPOKEN_OF]

    def of(rows: Sequence[Row], some: Sequence[int]) -> Iterator[Cell]:
        for seed in some:
            for row in rows:
                for fold in folds.get(row.set, ()):
                    yield Cell(row, fold, seed)

    first, rest = seeds[:1], seeds[1:]
    return [*of(SPOKEN_OF, first), *of(others, first), *of(SPOKEN_OF, rest)]
