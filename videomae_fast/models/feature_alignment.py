"""A student whose features are aligned with a teacher's: which layers, projections, and the loss.

Source: DistInternVideo2 in InternVideo2/single_modality/models/internvideo2_distill.py of
OpenGVLab/InternVideo, and UMT (arXiv 2303.16058). What differs: students see all tokens there are
instead of an unmasked fifth, so no positions are added before the projections; a teacher with other
patches is resampled to the student's tokens; the pooled features are the classifiers' own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videomae_fast.masks import Grid
from videomae_fast.models.classifier import VideoClassifier
from videomae_fast.models.transformer import Branch, add
from videomae_fast.ops.checks import check_frames

ALIGNMENT: Final = "alignment."
"""What the names of the projections' weights begin with: only distillation has them."""

_EPS: Final = 1e-5  # of the projections' LayerNorm, as in the source


def aligned_layers(student: int, teacher: int, count: int) -> list[tuple[int, int]]:
    """Pairs of layers that are aligned, the last first: the number of blocks done in each model.

    The last `count` layers of the student, against layers of the teacher that are as far from its
    end in proportion: of 12 and 40 blocks (12, 40), (11, 37), (10, 34), (9, 30), (8, 27), (7, 24).

    Args:
        student, teacher: blocks of each.
        count: pairs.

    Raises:
        ValueError: fewer than one pair, or more than the student has layers.

    Source: clip_student_return_interval 1 and clip_return_interval 3.34 of InternVideo2's scripts.
    """
    if not 1 <= count <= student:
        raise ValueError(f"{count} layers of {student} can't be aligned")
    return [(student - i, max(1, teacher - i * teacher // student)) for i in range(count)]


@dataclass(frozen=True)
class Features:
    """What is aligned of a clip.

    Attributes:
        layers: of each layer [B, t, h, w, width].
        pooled: [B, width], what a classifier's head gets.
    """

    layers: tuple[Tensor, ...]
    pooled: Tensor


def features_of(
    model: VideoClassifier, frames: Tensor, layers: Sequence[int], clip_seeds: Tensor | None = None
) -> Features:
    """The streams after some layers of a classifier, and its pooled features.

    Args:
        model: of any depth.
        frames: [B, T, H, W, 3], uint8, or floating point and normalised.
        layers: numbers of blocks done, in any order.
        clip_seeds: int64 [B], what drop path is drawn from.

    Raises:
        ValueError: frames of a wrong shape or dtype.
    """
    config = model.config
    grid = Grid(*check_frames(frames, config.tubelet_size, config.patch_size, floats=True))
    found: dict[int, Tensor] = {}

    def keep(done: int, x: Tensor, branch: Branch) -> None:
        if done in layers:
            found[done] = add(x, branch)

    x = add(*model.blocks(*model.embed(frames, None, grid), seeds=clip_seeds, after=keep))
    shape = (x.shape[0], grid.slots, grid.height, grid.width, -1)
    pooled: Tensor = model.fc_norm(x.mean(1))
    return Features(tuple(found[layer].reshape(shape) for layer in layers), pooled)


class Projection(nn.Module):
    """Features of a student to a teacher's width: linear, then LayerNorm."""

    def __init__(self, width: int, to: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, to)
        self.norm = nn.LayerNorm(to, eps=_EPS)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.linear(x))
        return out


class AlignedClassifier(VideoClassifier):
    """A classifier that also gives its features in a teacher's width.

    Args:
        layers: of this model, numbers of blocks done.
        width: of the teacher.
        other arguments: of :class:`VideoClassifier`.
    """

    def __init__(self, *args: Any, layers: Sequence[int], width: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self.layers = tuple(layers)
        self.alignment = nn.ModuleDict(
            {
                "layers": nn.ModuleList(Projection(self.config.width, width) for _ in layers),
                "pooled": Projection(self.config.width, width),
            }
        )

    @contextmanager
    def without_alignment(self) -> Iterator[None]:
        """While entered the model is a plain classifier by its keys, to load one's weights."""
        kept = self.alignment
        del self.alignment
        try:
            yield
        finally:
            self.alignment = kept

    def forward(
        self, frames: Tensor, clip_seeds: Tensor | None = None, *, aligned: bool = False
    ) -> Any:
        """
        Args:
            frames: [B, T, H, W, 3].
            clip_seeds: int64 [B], what drop path is drawn from.
            aligned: give the features, too.

        Returns:
            Logits [B, num_classes]; with `aligned` (logits, features by layer [B, t, h, w, width of
            the teacher], pooled features [B, width of the teacher]).
        """
        if not aligned:
            return super().forward(frames, clip_seeds)
        found = features_of(self, frames, self.layers, clip_seeds)
        layers = self.alignment["layers"]
        assert isinstance(layers, nn.ModuleList)
        streams = [project(x) for project, x in zip(layers, found.layers, strict=True)]
        logits = self.head(self.head_dropout(found.pooled))
        return logits, streams, self.alignment["pooled"](found.pooled)


def alignment_terms(layers: Sequence[Tensor], pooled: Tensor, teacher: Features) -> Tensor:
    """Of each clip the mean distance of its tokens, plus that of its pooled features, fp32 [B].

    A distance is ``2 - 2 cos``: the squared distance of the two vectors, each of length 1. Layers
    and tokens count alike. Where the teacher has another grid of tokens its vectors are
    interpolated bilinearly to the student's places, slot by slot, before they are normalised.

    Args:
        layers: of the student, each [B, t, h, w, width of the teacher].
        pooled: of the student, [B, width of the teacher].
        teacher: its features, which no gradient flows to.

    Raises:
        ValueError: other numbers of layers, or of time slots.
    """
    if len(layers) != len(teacher.layers):
        raise ValueError(
            f"{len(layers)} layers of the student, {len(teacher.layers)} of the teacher"
        )
    told = [
        _distance(mine, at_places(theirs.detach().float(), mine.shape[1:4])).mean((1, 2, 3))
        for mine, theirs in zip(layers, teacher.layers, strict=True)
    ]
    return torch.stack(told).mean(0) + _distance(pooled, teacher.pooled.detach())


def at_places(tokens: Tensor, grid: Sequence[int]) -> Tensor:
    """Token vectors [B, t, h, w, width] at the places of another grid (t, h, w) of the same clip.

    Raises:
        ValueError: another number of time slots.
    """
    t, h, w = grid
    b, slots, *own, width = tokens.shape
    if slots != t:
        raise ValueError(f"the teacher has {slots} time slots and the student {t}")
    if own == [h, w]:
        return tokens
    planes = tokens.reshape(b * t, *own, width).permute(0, 3, 1, 2)
    moved = F.interpolate(planes, (h, w), mode="bilinear", align_corners=False)
    return moved.permute(0, 2, 3, 1).reshape(b, t, h, w, width)


def _distance(one: Tensor, other: Tensor) -> Tensor:
    return 2 - 2 * F.cosine_similarity(one.float(), other.float(), dim=-1)
