"""What pre-training is worth: a classifier of motions from its weights, and one from scratch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from videomae_fast.data.files import make_folder
from videomae_fast.demo.material import Labels
from videomae_fast.demo.settings import FRAMES, STRIDE, Scale, finetuning_config
from videomae_fast.interop import SourceHints
from videomae_fast.pictures.confusion import save_confusion
from videomae_fast.recipes import Source
from videomae_fast.tasks.classification import finetune
from videomae_fast.tasks.testing import (
    ViewResult,
    ViewSettings,
    classifier_weights,
    score_lists,
    weights_path,
)
from videomae_fast.tasks.validation import History

Log = Callable[[str], None]

ARMS: tuple[str, ...] = ("pre-trained", "from scratch")


@dataclass(frozen=True)
class Classified:
    """A classifier on the held-out videos.

    Attributes:
        accuracy: share 0..1 of them that its last weights put into the right class.
        by_epoch: the same at the end of each epoch.
        result: in full.
    """

    accuracy: float
    by_epoch: list[float]
    result: ViewResult


def classify(
    arm: str, scale: Scale, labels: Labels, cache: Path, pretraining: Path, output: Path, log: Log
) -> Classified:
    """Fine-tunes a classifier, or goes on with it, and scores it by its last weights.

    Args:
        arm: of :data:`ARMS`.
        scale: how much.
        labels: lists and classes.
        cache: of decoded videos.
        pretraining: folder of the run that the one arm begins from.
        output: folder; the run is in one of the arm's name, ``confusion-….png`` beside it.
        log: takes the lines of progress.
    """
    name = arm.replace(" ", "-")
    init = pretraining if arm == ARMS[0] else None
    config = finetuning_config(
        scale, labels.training, labels.held_out, labels.classes, cache=cache, init=init
    )
    make_folder(output)
    finetune(config, output=output / name, log=log)
    path = weights_path(output / name)
    result = score_lists(
        path,
        classifier_weights(path, SourceHints()),
        [Source(labels.held_out, format="labels")],
        ViewSettings(
            segments=1, crops=1, sampling="dense", stride=STRIDE, frames=FRAMES,
            image_size=scale.image_size, workers=0, device="cpu",
        ),
        classes=None,
        output=output / name / "test",
        log=log,
    )  # fmt: skip
    names = [row.name for row in result.table]
    save_confusion(output / f"confusion-{name}.png", result.confusion, names)
    tops = [epoch.weights.top1 for epoch in History(output / name).epochs]
    return Classified(result.top1, [top for top in tops if top is not None], result)
