"""One prediction for each video out of those for its views.

Views are kept by (video, view), where the video is its place in the list: two files of one name in
other folders stay two, a view that was computed twice counts once, and the result does not depend
on the order of arrival, the batch size or the number of processes.

Source: ``merge`` in engine_for_finetuning.py of the official V2 code, whose faults are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

How = Literal["prob", "score"]
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Merged:
    """Predictions by video.

    Attributes:
        videos: int64 [N], places in the list, rising; those without any view are not among them.
        scores: float64 [N, classes], mean of the views' probabilities (or logits).
        views: int64 [N], how many views each has.
    """

    videos: NDArray[np.int64]
    scores: NDArray[np.float64]
    views: NDArray[np.int64]


class ViewLogits:
    """Logits of views as they come in, in any order.

    Raises:
        ValueError: `classes` or `views` below 1.
    """

    def __init__(self, classes: int, views: int) -> None:
        if min(classes, views) < 1:
            raise ValueError(f"classes ({classes}) and views ({views}) must be at least 1")
        self.classes, self.views = classes, views
        self._rows: dict[int, dict[int, Logits]] = {}

    def add(self, video: int, view: int, logits: Logits) -> None:
        """Keeps the logits of one view; the same view again changes nothing.

        Args:
            video: place in the list, from 0.
            view: place among the video's views, from 0.
            logits: float [classes].

        Raises:
            ValueError: a view outside its range, another number of classes, or NaN.
        """
        row = np.asarray(logits, dtype=np.float32)
        if not 0 <= view < self.views or video < 0:
            raise ValueError(f"view {view} of video {video}: there are views 0..{self.views - 1}")
        if row.shape != (self.classes,):
            raise ValueError(f"logits must be [{self.classes}], got {list(row.shape)}")
        if np.isnan(row).any():
            raise ValueError(f"view {view} of video {video} has NaN among its logits")
        self._rows.setdefault(video, {}).setdefault(view, row)

    def update(self, others: Iterable[Mapping[int, Mapping[int, Logits]]]) -> None:
        """Adds what other processes have (:attr:`rows`); a view of several counts once.

        Raises:
            ValueError: as :meth:`add`.
        """
        for other in others:
            for video, rows in other.items():
                for view, row in rows.items():
                    self.add(video, view, row)

    @property
    def rows(self) -> Mapping[int, Mapping[int, Logits]]:
        """Logits [classes] by video and view."""
        return self._rows

    def missing(self, videos: Iterable[int]) -> dict[int, list[int]]:
        """Views that these videos lack, by video; whole videos have no entry."""
        every = range(self.views)
        found = {v: [view for view in every if view not in self._rows.get(v, {})] for v in videos}
        return {video: views for video, views in found.items() if views}

    def merge(self, how: How = "prob") -> Merged:
        """The mean over each video's views, in the order of the views.

        Args:
            how: "prob" takes the mean of the softmax, as the papers' accuracies do; "score" that
                of the logits.

        Raises:
            ValueError: another word.
        """
        if how not in ("prob", "score"):
            raise ValueError(f"how is {how!r}; it is prob or score")
        videos = sorted(self._rows)
        scores = np.empty((len(videos), self.classes))
        for i, video in enumerate(videos):
            rows = np.stack([self._rows[video][view] for view in sorted(self._rows[video])])
            exact = rows.astype(np.float64)
            scores[i] = (softmax(exact) if how == "prob" else exact).mean(0)
        views = np.array([len(self._rows[video]) for video in videos], dtype=np.int64)
        return Merged(np.array(videos, dtype=np.int64), scores, views)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax over the last dimension, [..., classes]."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    whole: NDArray[np.float64] = powers / powers.sum(-1, keepdims=True)
    return whole
