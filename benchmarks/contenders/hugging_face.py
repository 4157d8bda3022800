"""Hugging Face's ``VideoMAEForPreTraining`` as a contender: encoder-only masking (V1).

Accelerated and fed with Masks it has dual masking, too.

transformers is optional. The model gets the official weights and LayerNorm's official eps, so that
it can be checked like any other contender; its biases are compared too, since a release of
transformers 5 dropped q and v biases silently when it loaded them.
"""

from __future__ import annotations

from collections.abc import Mapping

from einops import rearrange
from torch import Tensor, nn

from benchmarks.common.workload import Masking, Workload
from benchmarks.contenders.accelerated import HuggingFaceFromFrames, accelerate_if_asked
from benchmarks.contenders.base import Contender, UnavailableError, Variant, tables_to_device
from benchmarks.official.step import normalized_images
from videomae_fast.interop.weights.layouts.hugging_face import (
    BiasNames,
    from_hugging_face_keys,
    to_hugging_face_keys,
)

EPS = 1e-6


class HuggingFace(Contender):
    """Fed with normalised clips [B, T, 3, H, W] and a boolean mask."""

    def prepare(self) -> Mapping[str, Tensor]:
        encoder_mask, _ = self.workload.masks(self.masking).to_bool()
        images = rearrange(normalized_images(self.workload.frames), "b c t h w -> b t c h w")
        return {"images": images.contiguous(), "encoder_mask": encoder_mask}

    def loss(self) -> Tensor:
        with self.mixed():
            loss: Tensor = self.call(self.input("images"), self.input("encoder_mask")).loss
        return loss

    def gradients(self) -> dict[str, Tensor]:
        return from_hugging_face_keys(super().gradients())


def build(name: str, variant: Variant, workload: Workload, masking: Masking) -> Contender:
    """The contender; "as-shipped" keeps its position tables on the host, as transformers has them.

    Raises:
        ModuleNotFoundError: transformers is not installed.
        UnavailableError: dual masking, which it does not have where it is not fed with Masks; or
            a model that ``accelerate`` does not take.
        RuntimeError: weights are left over, on either side.
    """
    from_frames = variant.accelerated == "all lines"
    if masking != "encoder-only" and not from_frames:
        raise UnavailableError("Hugging Face's VideoMAE has no decoder mask")
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    config = workload.config
    model: nn.Module = VideoMAEForPreTraining(
        VideoMAEConfig(
            image_size=config.image_size,
            patch_size=config.patch_size,
            num_frames=config.frames,
            tubelet_size=config.tubelet_size,
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            intermediate_size=int(config.width * config.mlp_ratio),
            decoder_hidden_size=config.decoder_width,
            decoder_num_hidden_layers=config.decoder_depth,
            decoder_num_attention_heads=config.decoder_heads,
            decoder_intermediate_size=int(config.decoder_width * config.mlp_ratio),
            layer_norm_eps=EPS,
            use_mean_pooling=False,  # otherwise the encoder's norm is missing
        )
    )
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = EPS
    # The modules' names changed in transformers 5.5.1.
    newer = any(name.endswith("query.bias") for name in model.state_dict())
    biases: BiasNames = "query.bias" if newer else "q_bias"
    model.load_state_dict(to_hugging_face_keys(workload.state, biases=biases))
    if variant.tables == "repaired":
        tables_to_device(model, "position_embeddings")
    accelerate_if_asked(model, variant)
    kind = HuggingFaceFromFrames if from_frames else HuggingFace
    return kind(name, variant, model, workload, masking)
