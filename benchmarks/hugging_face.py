"""Hugging Face's ``VideoMAEForPreTraining`` as a contender: encoder-only masking (V1).

transformers is optional. The model gets the official weights and LayerNorm's official eps, so that
it can be checked like any other contender; its biases are compared too, since a release of
transformers 5 dropped q and v biases silently when it loaded them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from benchmarks.contenders import Contender, UnavailableError, Variant, tables_to_device
from benchmarks.official_step import normalized_images
from benchmarks.workload import Masking, Workload

EPS = 1e-6
BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
QKV = ("query", "key", "value")


def to_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official names and packed QKV to Hugging Face's names, each tensor once.

    Raises:
        KeyError: a name that has no counterpart.
    """
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith("attn.qkv.weight"):
            for part, rows in zip(QKV, value.chunk(3), strict=True):
                found[_prefix(name, "attn.qkv.weight", f"attention.attention.{part}.weight")] = rows
        else:
            found[_renamed(name)] = value
    return found


def to_official(state: Mapping[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    """The inverse: tensors of the official `names`."""
    found = {}
    for name in names:
        if name.endswith("attn.qkv.weight"):
            keys = [
                _prefix(name, "attn.qkv.weight", f"attention.attention.{part}.weight")
                for part in QKV
            ]
            found[name] = torch.cat([state[key] for key in keys])
        else:
            found[name] = state[_renamed(name)]
    return found


def _renamed(name: str) -> str:
    plain = {
        "mask_token": "mask_token",
        "encoder_to_decoder.weight": "encoder_to_decoder.weight",
        "encoder.patch_embed.proj": "videomae.embeddings.patch_embeddings.projection",
        "encoder.norm": "videomae.layernorm",
        "decoder.norm": "decoder.norm",
        "decoder.head": "decoder.head",
    }
    stem, _, kind = name.rpartition(".")
    if name in plain:
        return plain[name]
    if stem in plain:
        return f"{plain[stem]}.{kind}"
    if kind in ("q_bias", "v_bias"):
        part = {"q_bias": "query", "v_bias": "value"}[kind]
        return _prefix(name, f"attn.{kind}", f"attention.attention.{part}.bias")
    matched = re.fullmatch(r"(?:encoder|decoder)\.blocks\.\d+\.(.+)", stem)
    if matched is None or matched[1] not in BLOCK:
        raise KeyError(f"{name} has no counterpart in Hugging Face's model")
    return _prefix(name, f"{matched[1]}.{kind}", f"{BLOCK[matched[1]]}.{kind}")


def _prefix(name: str, end: str, new_end: str) -> str:
    """A block's name with its beginning and end in Hugging Face's words."""
    start = name.removesuffix(end)
    start = start.replace("encoder.blocks.", "videomae.encoder.layer.")
    return start.replace("decoder.blocks.", "decoder.decoder_layers.") + new_end


class HuggingFace(Contender):
    """Fed with normalised clips [B, T, 3, H, W] and a boolean mask."""

    def prepare(self) -> Mapping[str, Tensor]:
        encoder_mask, _ = self.workload.masks(self.masking).to_bool()
        images = normalized_images(self.workload.frames).transpose(1, 2).contiguous()
        return {"images": images, "encoder_mask": encoder_mask}

    def loss(self) -> Tensor:
        with self.mixed():
            loss: Tensor = self.call(self.input("images"), self.input("encoder_mask")).loss
        return loss

    def gradients(self) -> dict[str, Tensor]:
        return to_official(super().gradients(), list(self.workload.state))


def build(name: str, variant: Variant, workload: Workload, masking: Masking) -> HuggingFace:
    """The contender; "as-shipped" keeps its position tables on the host, as transformers has them.

    Raises:
        ModuleNotFoundError: transformers is not installed.
        UnavailableError: dual masking, which it does not have.
        RuntimeError: weights are left over, on either side.
    """
    if masking != "encoder-only":
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
    model.load_state_dict(to_hugging_face(workload.state))
    if variant.tables == "repaired":
        tables_to_device(model, "position_embeddings")
    return HuggingFace(name, variant, model, workload, masking)
