"""Labelled data of a fine-tuning run: its clips, its classes, and that labels are of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.augment.policy import AugmentSettings
from videomae_fast.data.dataset import ClipDataset, clip_dataset
from videomae_fast.data.errors import ListError
from videomae_fast.data.labels.names import class_names
from videomae_fast.data.lists.sources import LoadedSource
from videomae_fast.data.store.opening import is_store
from videomae_fast.data.views.augmented import Augmented
from videomae_fast.data.views.evaluation import Evaluation
from videomae_fast.errors import UsageError
from videomae_fast.recipes.classification import FinetuneConfig, LabelledData
from videomae_fast.recipes.source import Source

_SHOWN = 10


@dataclass(frozen=True)
class Classes:
    """The classes of a run.

    Attributes:
        count: how many.
        names: by label, None where nobody names them.
    """

    count: int
    names: tuple[str, ...] | None

    def name(self, label: int) -> str:
        """For messages and tables: the name, or the label."""
        return str(label) if self.names is None else self.names[label]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names for tables, by label."""
        return tuple(self.name(label) for label in range(self.count))


def training_clips(
    config: FinetuneConfig, kind: Callable[..., ClipDataset] = ClipDataset
) -> ClipDataset:
    """The augmented clips of the training lists.

    Args:
        config: of the run.
        kind: which clips they are.

    Raises:
        UsageError, ListError: a list can't be read, or augmentation that can't be.
    """
    try:
        settings = AugmentSettings(**asdict(config.augment))
    except ValueError as error:
        raise UsageError(f"augment: {error}") from None
    rule = Augmented(config.data.sampling, settings)
    return _clips(config, config.data.lists, rule, config.data.samples, kind)


def validation_clips(config: FinetuneConfig) -> ClipDataset | None:
    """One clip from the middle of each video of the validation lists, None without a list.

    Raises:
        UsageError, ListError: a list can't be read.
    """
    if not config.data.validation:
        return None
    return _clips(config, config.data.validation, Evaluation(config.data.sampling), 1)


def _clips(
    config: FinetuneConfig,
    lists: Sequence[Source],
    rule: Augmented | Evaluation,
    samples: int,
    kind: Callable[..., ClipDataset] = ClipDataset,
) -> ClipDataset:
    check_formats(lists)
    size = config.model.image_size
    return clip_dataset(
        config.data,
        lists,
        frames=config.model.frames,
        image_size=size,
        samples=samples,
        seed=config.run.seed,
        rule=rule,
        kind=kind,
    )


def check_formats(lists: Sequence[Source]) -> None:
    """Raises UsageError for no list, or one that is read without labels."""
    if not lists:
        raise UsageError("data.lists names no list: give at least one with --data LIST")
    for source in lists:
        if source.format == "pretrain" and not is_store(source.path):
            raise UsageError(
                f"{source.path}: is read as format pretrain, which has no labels: use "
                "format=labels for lines 'path label', or folder-labels"
            )


def strides_without_use(data: LabelledData) -> str | None:
    """A sentence on strides that were given and do nothing, as sparse clips have none; or None."""
    if data.sampling != "sparse":
        return None
    given = [] if data.stride == LabelledData().stride else [f"data.stride {data.stride}"]
    for source in (*data.lists, *data.validation):
        if source.stride is not None:
            given.append(f"{source.label}'s stride {source.stride}")
    if not given:
        return None
    return f"without effect: {', '.join(given)}, as sparse clips spread over the whole video"


def classes_of(classes: str | None, dataset: ClipDataset) -> Classes:
    """The classes of a run: the named ones, or 0 to the largest label of the training lists.

    Raises:
        UsageError: names that can't be read.
    """
    names = None if classes is None else class_names(classes)
    if names is not None:
        return Classes(len(names), names)
    return Classes(max(int(s.entries.label.max()) for s in dataset.sources) + 1, None)


def check_labels(sources: Sequence[LoadedSource], classes: Classes) -> None:
    """Checks that all labels are of the classes.

    Raises:
        ListError: one is not; names its file, its line, and how many more there are.
    """
    for source in sources:
        labels = source.entries.label
        wrong = np.flatnonzero((labels < 0) | (labels >= classes.count))
        if len(wrong):
            place, label = source.entries.place(int(wrong[0])), int(labels[wrong[0]])
            also = len(wrong) - 1
            verb = "is" if also == 1 else "are"
            more = f"; {also} more {verb} likewise" if also else ""
            if label < 0:
                raise ListError(
                    f"{place}: has no label{more}: store the videos anew from a list of format "
                    "labels"
                )
            told = "named in data.classes" if classes.names else "that the training lists have"
            raise ListError(
                f"{place}: label {label} is none of the "
                f"{classes.count} classes {told} (0 to {classes.count - 1}){more}: correct the "
                "list, or name all classes with data.classes"
            )


def labels_digest(sources: Sequence[LoadedSource], classes: Classes) -> str:
    """SHA-256 of what the lists call their videos, in their order, and of the classes' names: the
    same wherever lists and videos lie."""
    found = hashlib.sha256(json.dumps(classes.names).encode())
    for source in sources:
        found.update(f"{len(source)}\n".encode())
        found.update(np.ascontiguousarray(source.entries.label, dtype="<i4").data)
    return found.hexdigest()


def videos_of_classes(sources: Sequence[LoadedSource], classes: Classes) -> NDArray[np.int64]:
    """How many videos each class has, int64 [classes]."""
    labels = np.concatenate([source.entries.label for source in sources])
    return np.bincount(labels, minlength=classes.count).astype(np.int64)


def without_videos(counts: NDArray[np.int64], classes: Classes) -> str | None:
    """A sentence on the classes without a training video, or None."""
    empty = np.flatnonzero(counts == 0)
    if not len(empty):
        return None
    shown = ", ".join(classes.name(int(label)) for label in empty[:_SHOWN])
    more = f" and {len(empty) - _SHOWN} more" if len(empty) > _SHOWN else ""
    return (
        f"warning: {len(empty)} of {classes.count} classes have no training video and can't be "
        f"learned: {shown}{more}"
    )
