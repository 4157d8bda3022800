"""Small models of transformers' VideoMAE, and what they are given."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from benchmarks.official.step import normalized_images
from tests.support.official_models import frames, randomise

needs_transformers = pytest.mark.skipif(
    find_spec("transformers") is None, reason="transformers is not installed"
)


def small_hugging_face(kind: str, **settings):
    from transformers import (
        VideoMAEConfig,
        VideoMAEForPreTraining,
        VideoMAEForVideoClassification,
        VideoMAEModel,
    )

    small = {
        "image_size": 32, "num_frames": 8, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 64, "decoder_hidden_size": 16,
        "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 1,
        "decoder_intermediate_size": 24, "num_labels": 5,
    }  # fmt: skip
    config = VideoMAEConfig(**{**small, **settings})
    kinds = {
        "pretraining": VideoMAEForPreTraining,
        "base": VideoMAEModel,
        "classification": VideoMAEForVideoClassification,
    }
    return randomise(kinds[kind](config))


def pixel_values() -> torch.Tensor:
    return normalized_images(frames()).transpose(1, 2)
