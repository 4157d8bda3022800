"""How well videos are reconstructed, against predicting nothing; pictures before and after."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from videomae_fast.data import read_clip
from videomae_fast.demo.settings import RECONSTRUCTED, STRIDE, Scale
from videomae_fast.models.masked_autoencoder import MaskedAutoencoder
from videomae_fast.pictures.reconstruction import reconstruct
from videomae_fast.pictures.showcase import Shown, show_reconstruction


@dataclass(frozen=True)
class Losses:
    """Means over videos, on all that was hidden, in the units of the training loss.

    Attributes:
        videos: how many.
        before: of the model with its first weights.
        after: of the trained model.
        nothing: of a prediction that is 0 everywhere, which is each cube's mean colour.
    """

    videos: int
    before: float
    after: float
    nothing: float


def losses(
    before: MaskedAutoencoder, after: MaskedAutoencoder, videos: Sequence[Path], scale: Scale
) -> Losses:
    """Reconstructs one clip of each video, hidden by a mask of its own.

    Raises:
        VideoMAEFastError: a video can't be read.
    """
    models = (before, after, without_prediction(after))
    found: tuple[list[float], ...] = ([], [], [])
    for number, video in enumerate(videos):
        clip = torch.as_tensor(read_clip(video, **scale.clip()))
        for model, one in zip(models, found, strict=True):
            one.append(reconstruct(model, clip, RECONSTRUCTED, seed=scale.seed + number).loss)
    return Losses(len(videos), *(fmean(one) for one in found))


def without_prediction(model: MaskedAutoencoder) -> MaskedAutoencoder:
    """A copy that predicts 0 for every value."""
    silent = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in silent.decoder.head.parameters():
            parameter.zero_()
    return silent


def show(
    before: MaskedAutoencoder,
    after: MaskedAutoencoder,
    videos: Sequence[Path],
    scale: Scale,
    output: Path,
    note: str,
) -> list[Shown]:
    """Pictures of what is made of each video, before and after training.

    Args:
        before, after: the model with its first weights, and as it was trained.
        videos: each by its middle.
        scale: the clips' size, and the seed of the masks.
        output: folder of the pictures.
        note: what has to be said about these videos.
    """
    return [
        show_reconstruction(
            after, video, output, spec=RECONSTRUCTED, seed=scale.seed + number, stride=STRIDE,
            note=note, settings={"shown_video_is": note}, before=before,
        )
        for number, video in enumerate(videos)
    ]  # fmt: skip


def spread(videos: Sequence[Path], count: int = 3) -> list[Path]:
    """At most so many of the videos, from all over the list."""
    return list(videos[:: max(1, -(-len(videos) // count))])
