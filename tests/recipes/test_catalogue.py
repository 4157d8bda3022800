"""The package's recipes against the table of the papers and scripts."""

from __future__ import annotations

import pytest

from videomae_fast.models.config import MAEConfig
from videomae_fast.recipes.catalogue import FACTS, names, recipe
from videomae_fast.recipes.load import load
from videomae_fast.recipes.schema import Optim, PretrainConfig

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
OWN = {"few_clips"}  # tests/recipes/test_few_clips.py
SIZES = {"s": "small", "b": "base", "l": "large", "h": "huge", "g": "giant"}


def test_there_are_no_others() -> None:
    assert set(names("pretrain")) == {*DUAL, *SINGLE, *OWN}


@pytest.mark.parametrize("name", DUAL)
def test_v2(name: str) -> None:
    c = load(PretrainConfig, name)
    gpus, lr, epochs, warmup, checkpointing, clip = DUAL[name]
    assert c.optim == Optim(
        videos_per_step=gpus * 32, base_lr=lr, min_lr=1e-5, betas=(0.9, 0.95), weight_decay=0.05,
        clip_grad=clip,
    )  # fmt: skip
    assert (c.schedule.epochs, c.schedule.warmup_epochs) == (epochs, warmup)
    assert c.run.activation_checkpointing == checkpointing
    assert (c.data.samples, c.model.frames, c.data.stride) == (4, 16, 4)
    assert (c.masks.encoder, c.masks.encoder_ratio) == ("tube", 0.9)
    assert (c.masks.decoder, c.masks.decoder_ratio) == ("running-cell", 0.5)
    assert (c.model.decoder_depth, c.data.format) == (4, "unlabeled-hybrid")


@pytest.mark.parametrize("name", SINGLE)
def test_v1(name: str) -> None:
    c = load(PretrainConfig, name)
    videos, lr, epochs, stride, depth, ratio = SINGLE[name]
    assert c.optim == Optim(
        videos_per_step=videos, base_lr=lr, min_lr=1e-5, betas=(0.9, 0.95), weight_decay=0.05
    )
    assert (c.schedule.epochs, c.schedule.warmup_epochs) == (epochs, 40)
    assert (c.data.stride, c.model.decoder_depth, c.masks.encoder_ratio) == (stride, depth, ratio)
    assert (c.data.samples, c.data.format, c.masks.decoder) == (1, "plain", "none")


@pytest.mark.parametrize("name", [*DUAL, *SINGLE])
def test_each_says_what_it_is(name: str) -> None:
    one = recipe("pretrain", name)
    assert one.title.startswith("VideoMAE")
    assert set(one.facts) == set(FACTS)
    assert all(one.facts.values())
    assert f" pretrain --recipe {name} --data " in one.facts["command"]
    assert one.facts["source"].startswith("scripts/")
    size = load(PretrainConfig, name).model.size
    assert size == SIZES[name[4]]
    assert MAEConfig.from_size(size)
    # The number of processes and videos per GPU that the command and the title say
    words = one.facts["command"].split()
    nodes = int(words[words.index("--nnodes") + 1]) if "--nnodes" in words else 1
    gpus = nodes * int(words[words.index("--nproc-per-node") + 1])
    assert f"{gpus} GPUs x " in one.title
    each = int(one.title.partition(" GPUs x ")[2].split()[0])
    assert load(PretrainConfig, name).optim.videos_per_step == gpus * each
