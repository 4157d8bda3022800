"""Scores of videos from several views of each: one decode for all of them, many views at a time.

Source: ``final_test`` and ``merge`` in engine_for_finetuning.py of the official V2 code, which
decodes a video once for each view and merges by file name; neither is followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from videomae_fast.data.dataset import ClipDataset
from videomae_fast.data.failures import Failure
from videomae_fast.data.loader.pipeline import TIME_LIMIT, ClipBatch, once_loader
from videomae_fast.data.order import Draw
from videomae_fast.evaluation.merging import ViewLogits


@dataclass(frozen=True)
class VideoScores:
    """What a classifier says of one video.

    Attributes:
        place: of the video among all entries of the lists.
        label: of the list.
        scores: float64 [classes], mean of the views' probabilities; None where it could not be
            read.
        loss: mean of the views' cross-entropies; NaN likewise.
        failure: why it could not be read, or None.
    """

    place: int
    label: int
    scores: NDArray[np.float64] | None
    loss: float
    failure: Failure | None


def score_videos(
    model: nn.Module,
    dataset: ClipDataset,
    draws: Sequence[Draw],
    *,
    clips: int,
    workers: int = 0,
    device: torch.device | str = "cpu",
    bf16: bool = False,
    time_limit: float | None = TIME_LIMIT,
) -> Iterator[VideoScores]:
    """Gives the scores of videos, in the order of the draws.

    A video's score depends on it alone, but for what a matmul of other rows rounds differently.

    Args:
        model: clips to logits [B, classes], on `device`; it is in evaluation mode meanwhile.
        dataset: whose samples are the views of an
            :class:`~videomae_fast.data.views.evaluation.Evaluation`.
        draws: of :func:`~videomae_fast.data.loader.pipeline.every_entry`, or some of them.
        clips: that the model takes at a time.
        workers: loader processes.
        device: of the model.
        bf16: compute under bf16 autocast.
        time_limit: seconds for one video.

    Raises:
        ValueError: `clips` below 1.
    """
    if clips < 1:
        raise ValueError(f"clips ({clips}) must be at least 1")
    views = dataset.samples
    videos = max(1, clips // views)
    training = model.training
    model.eval()
    batches = once_loader(
        dataset, draws, videos=videos, workers=workers, device=device, time_limit=time_limit
    )
    try:
        with closing(batches):  # type: ignore[type-var]
            for number, batch in enumerate(batches):
                part = draws[number * videos : (number + 1) * videos]
                logits = logits_of(model, batch.frames, clips, bf16=bf16)
                yield from _merged(part, batch, logits.cpu(), views)
    finally:
        model.train(training)


@torch.no_grad()
def logits_of(model: nn.Module, frames: Tensor, clips: int, *, bf16: bool) -> Tensor:
    """Logits fp32 [B, classes] of frames [B, T, H, W, 3], `clips` of them at a time."""
    with torch.autocast(frames.device.type, torch.bfloat16, enabled=bf16):
        return torch.cat([model(part).float() for part in torch.split(frames, clips)])


def _merged(
    draws: Sequence[Draw], batch: ClipBatch, logits: Tensor, views: int
) -> Iterator[VideoScores]:
    failed = {failure.position: failure for failure in batch.failures}
    labels = batch.labels[::views].tolist()
    for i, (draw, label) in enumerate(zip(draws, labels, strict=True)):
        if draw.position in failed:
            yield VideoScores(draw.position, label, None, float("nan"), failed[draw.position])
            continue
        rows = logits[i * views : (i + 1) * views]
        if not rows.isfinite().all():
            raise ValueError(f"{batch.names[i]}: the model's logits are not finite")
        merging = ViewLogits(rows.shape[1], views)
        for view, row in enumerate(rows.numpy()):
            merging.add(0, view, row)
        loss = float("nan")
        if 0 <= label < rows.shape[1]:
            loss = float(-rows.double().log_softmax(-1)[:, label].mean())
        yield VideoScores(draw.position, label, merging.merge().scores[0], loss, None)
