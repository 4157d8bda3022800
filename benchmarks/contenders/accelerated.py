"""Other code's models under :func:`videomae_fast.accelerate` as contenders, in two lines or in all.

In two lines the model alone is another: clips, masks, targets, loss and step stay its own. In all
lines it is fed as ours is, with uint8 frames and Masks made on the device.
"""

from __future__ import annotations

from torch import Tensor, nn

from benchmarks.contenders.base import UnavailableError, Variant
from benchmarks.contenders.ours import FromSeeds
from videomae_fast import MAEConfig, MaskSpec, accelerate, masked_pixel_loss
from videomae_fast.errors import AccelerationError
from videomae_fast.interop.weights.layouts.hugging_face import from_hugging_face_keys
from videomae_fast.models.flops import flops


class OfficialFromFrames(FromSeeds):
    """The official code's model, its targets and loss replaced by ``masked_pixel_loss``."""

    def loss(self) -> Tensor:
        frames, masks = self.input("frames"), self.masks()
        with self.mixed():
            prediction = self.call(frames, masks)
        return masked_pixel_loss(prediction, frames, masks, tokens="decoder")


class HuggingFaceFromFrames(FromSeeds):
    """Hugging Face's model, which computes its own loss of the frames; decoder masks come along."""

    def loss(self) -> Tensor:
        masks = self.masks()
        with self.mixed():
            loss: Tensor = self.call(self.input("frames"), masks).loss
        return loss

    def gradients(self) -> dict[str, Tensor]:
        return from_hugging_face_keys(super().gradients())


def accelerate_if_asked(model: nn.Module, variant: Variant) -> None:
    """In place, before anything is compiled.

    Raises:
        UnavailableError: a model that ``accelerate`` does not take, with its reason.
    """
    if variant.accelerated == "no":
        return
    try:
        # Transcriptions of the official code are taken for it where they compute the same
        accelerate(model, unknown_code="compare")
    except AccelerationError as error:
        raise UnavailableError(str(error)) from error


def multiply_adds(config: MAEConfig, spec: MaskSpec, batch: int) -> float:
    """Of one clip's forward pass of an accelerated model.

    They are ours, but for the last decoder block and the head: these work for all decoded tokens,
    as the models' outputs hold them, where ours has those in the loss only.
    """
    counts, width = spec.counts(config.grid), config.decoder_width
    length = counts.visible + counts.decoder
    token = 2 * width * width  # query and projection
    token += 2 * width * int(width * config.mlp_ratio) + 2 * length * width
    token += width * config.patch_values
    total = sum(flops(config, spec, "ours", batch=batch).values())
    return float(total + (counts.decoder - counts.loss) * token)
