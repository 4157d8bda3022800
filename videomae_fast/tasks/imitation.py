"""The step of distillation: a student is to say of mixed clips what its teacher says of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from videomae_fast.data.loader.pipeline import ClipBatch
from videomae_fast.models.classification_loss import distillation_terms
from videomae_fast.models.feature_alignment import alignment_terms
from videomae_fast.recipes.distillation import DistillConfig
from videomae_fast.tasks.recognition import Recognition
from videomae_fast.tasks.teacher import Said, TeacherSource
from videomae_fast.training.task import MicroLoss, Place


class Imitation(Recognition):
    """``(1 - s) · distance to the teacher + s · cross-entropy of the labels``, mean over clips.

    The distance is that of :func:`~videomae_fast.models.classification_loss.distillation_terms`, or
    in mode features of :func:`~videomae_fast.models.feature_alignment.alignment_terms`. Both models
    get the same clips, mixed as in fine-tuning, and the teacher's word on a mixed clip counts: it
    is no mixture of words. Labels take part by their share s alone, and in what is told.

    Args:
        config: of the run.
        videos: int64 [classes], training videos of each class.
        source: of what the teacher says; it is no part of the model, and not saved.
    """

    metrics = ("accuracy", "agreement", "teacher_accuracy")

    def __init__(
        self, config: DistillConfig, videos: NDArray[np.int64], source: TeacherSource
    ) -> None:
        super().__init__(config, videos)
        self.distillation, self.source = config.distillation, source

    def inputs(self, batch: ClipBatch, place: Place) -> dict[str, Tensor]:
        """Those of :class:`Recognition`, and those of the source."""
        return {**super().inputs(batch, place), **self.source.inputs(place)}

    def ms_per_step(self, steps: int) -> dict[str, float]:
        """See :class:`~videomae_fast.training.task.Timed`."""
        return {"teacher": self.source.ms_per_step(steps)}

    def loss(self, model: nn.Module, inputs: Mapping[str, Tensor], *, scale: float) -> MicroLoss:
        ok = inputs["ok"] & inputs["known"] if "known" in inputs else inputs["ok"]
        clips, target = self.mixed({**inputs, "ok": ok})
        said = self.source.say(clips, inputs)
        logits, terms = self._compared(model, clips, inputs["seeds"], said)
        share = self.distillation.label_share
        if share > 0:
            terms = (1 - share) * terms + share * self.label_terms(logits, target, inputs)
        weight = ok.float()
        total = (terms * weight).sum()
        with torch.no_grad():
            mine, theirs, named = (x.argmax(-1) for x in (logits, said.logits, target))
            told = [mine == named, mine == theirs, theirs == named]
            sums = [(each * weight).sum() for each in told]
        return MicroLoss(total.detach(), weight.sum(), (~ok).sum(), (scale * total).backward, sums)

    def _compared(
        self, model: nn.Module, clips: Tensor, seeds: Tensor, said: Said
    ) -> tuple[Tensor, Tensor]:
        """The student's logits fp32 [B, classes], and its distance to the teacher fp32 [B]."""
        if said.features is None:
            logits = model(clips, seeds).float()
            return logits, distillation_terms(logits, said.logits, self.distillation.temperature)
        logits, layers, pooled = model(clips, seeds, aligned=True)
        return logits.float(), alignment_terms(layers, pooled, said.features)
