"""The official computation: the transcription, and what a checkout's model is fed like."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from benchmarks.common.workload import Masking, Workload
from benchmarks.contenders.base import Contender, Variant
from benchmarks.official.model import OfficialPretraining
from benchmarks.official.savings import SavingPretraining, saving_loss
from benchmarks.official.step import normalized_images, pretraining_loss


class Official(Contender):
    """The transcription or a checkout, fed with normalised clips and boolean masks."""

    def predict(self, images: Tensor, encoder_mask: Tensor, decoder_mask: Tensor) -> Tensor:
        out: Tensor = self.call(images, encoder_mask, decoder_mask)
        return out

    def prepare(self) -> Mapping[str, Tensor]:
        encoder_mask, decoder_mask = self.workload.masks(self.masking).to_bool()
        images = normalized_images(self.workload.frames)
        return {"images": images, "encoder_mask": encoder_mask, "decoder_mask": decoder_mask}

    def loss(self) -> Tensor:
        config, savings = self.workload.config, self.variant.savings
        batch = [self.input(name) for name in ("images", "encoder_mask", "decoder_mask")]
        tubelet, patch = config.tubelet_size, config.patch_size
        if savings:
            return saving_loss(
                self.predict, savings, *batch, tubelet=tubelet, patch=patch, autocast=self.autocast
            )
        return pretraining_loss(
            self.predict, *batch, tubelet=tubelet, patch=patch, autocast=self.autocast
        )


def build(name: str, variant: Variant, workload: Workload, masking: Masking) -> Official:
    """The transcription with the workload's weights, of kind "official"."""
    tables, attention = variant.tables, variant.attention
    model: OfficialPretraining
    with torch.device(workload.device):
        if variant.savings:
            model = SavingPretraining(
                workload.config, variant.savings, tables=tables, attention=attention
            )
        else:
            model = OfficialPretraining(
                workload.config,
                tables=tables,
                attention=attention,
                checkpointing=variant.checkpointing,
            )
    model.load_state_dict(workload.state)
    return Official(name, variant, model, workload, masking)
