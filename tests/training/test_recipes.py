"""The recipes against the table of the papers and scripts."""

from __future__ import annotations

import pytest

from videomae_fast.training.recipes import RECIPES

DUAL = {
    # GPUs, base lr, epochs, warm-up, activation checkpointing, clip
    "vit_b_hybrid": (32, 1e-3, 200, 20, False, 0.0),
    "vit_l_hybrid": (48, 1e-3, 300, 30, False, 0.0),
    "vit_h_hybrid": (64, 1e-3, 300, 30, True, 0.0),
    "vit_g_hybrid": (64, 6e-4, 300, 30, True, 0.02),
}
SINGLE = {
    # videos per step, base lr, epochs, stride, decoder depth, mask ratio
    "vit_s_k400": (1024, 1.5e-4, 1601, 4, 4, 0.9),
    "vit_b_k400": (2048, 1.5e-4, 1601, 4, 4, 0.9),
    "vit_l_k400": (512, 1.5e-4, 1601, 4, 12, 0.9),
    "vit_h_k400": (1024, 1.5e-4, 1601, 4, 12, 0.9),
    "vit_s_ssv2": (2048, 1.5e-4, 2401, 2, 4, 0.9),
    "vit_b_ssv2": (2048, 1.5e-4, 2401, 2, 4, 0.9),
    "vit_b_ucf101": (192, 3e-4, 3201, 4, 4, 0.75),
}


def test_there_are_no_others() -> None:
    assert set(RECIPES) == set(DUAL) | set(SINGLE)


@pytest.mark.parametrize("name", DUAL)
def test_v2(name: str) -> None:
    c = RECIPES[name]()
    gpus, lr, epochs, warmup, checkpointing, clip = DUAL[name]
    assert c.videos_per_step == gpus * 32
    assert (c.base_lr, c.epochs, c.warmup_epochs) == (lr, epochs, warmup)
    assert (c.activation_checkpointing, c.clip_grad) == (checkpointing, clip)
    assert (c.samples_per_video, c.frames, c.stride) == (4, 16, 4)
    assert (c.encoder_mask, c.encoder_mask_ratio) == ("tube", 0.9)
    assert (c.decoder_mask, c.decoder_mask_ratio) == ("running-cell", 0.5)
    assert (c.betas, c.weight_decay, c.min_lr) == ((0.9, 0.95), 0.05, 1e-5)
    assert (c.decoder_depth, c.data_format) == (4, "unlabeled-hybrid")
    sizes = {"b": (768, 16, 160), "l": (1024, 16, 160), "h": (1280, 16, 160), "g": (1408, 14, 208)}
    width, patch, visible = sizes[name[4]]
    model = c.model_config()
    assert (model.width, model.patch_size) == (width, patch)
    assert c.mask_spec().counts(model.grid).visible == visible


@pytest.mark.parametrize("name", SINGLE)
def test_v1(name: str) -> None:
    c = RECIPES[name]()
    videos, lr, epochs, stride, depth, ratio = SINGLE[name]
    assert (c.videos_per_step, c.base_lr, c.epochs) == (videos, lr, epochs)
    assert (c.stride, c.decoder_depth, c.encoder_mask_ratio) == (stride, depth, ratio)
    assert (c.warmup_epochs, c.samples_per_video, c.decoder_mask) == (40, 1, "none")


@pytest.mark.parametrize("name", RECIPES)
def test_each_says_its_command_and_source(name: str) -> None:
    text = RECIPES[name].__doc__ or ""
    assert f"--recipe {name}" in text
    assert "Source: scripts/" in text
