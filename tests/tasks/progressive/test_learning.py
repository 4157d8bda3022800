"""What progressive training is for: a small set learned from its own clips, not from scratch."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.support.labelled import write_set
from tests.support.runs import quiet
from videomae_fast.recipes.plan import read_plan
from videomae_fast.tasks.progressive.chain import run_plan

COMMON = """
[common]
model.size = "small"
model.image_size = 32
model.patch_size = 8
model.frames = 4
model.width = 64
model.depth = 3
model.heads = 2
data.stride = 4
data.workers = 0
data.samples = 2
run.device = "cpu"
run.log_every = 100
optim.videos_per_step = 16

[[stages]]
name = "own"
task = "pretrain"
set.data.lists = [{{ path = "{train}", format = "labels" }}]
set.data.cache = "{cache}"
set.model.decoder_width = 32
set.model.decoder_depth = 1
set.model.decoder_heads = 1
set.masks.encoder_ratio = 0.75
set.masks.decoder = "none"
set.target.ignore_flat_cubes = true
set.optim.base_lr = 0.05
set.schedule.epochs = 200
set.schedule.warmup_epochs = 5
"""
TUNED = """
[[stages]]
name = "{name}"
task = "finetune"
from = "{source}"
set.data.lists = ["{train}"]
set.data.validation = ["{val}"]
set.data.cache = "{cache}"
set.mix.mixup = 0
set.mix.cutmix = 0
set.augment.operations = 0
set.augment.flip = 0
set.augment.erase = 0
set.augment.area = [0.8, 1.0]
set.model.drop_path = 0
set.model.init_scale = 1
set.optim.base_lr = 0.04
set.optim.layer_decay = 0.9
set.schedule.epochs = 6
set.schedule.warmup_epochs = 1

[[stages]]
name = "{name}-test"
task = "test"
set.data.lists = ["{val}"]
set.views.segments = 2
set.views.crops = 1
"""


def test_a_small_set_is_learned_from_its_own_clips_and_not_from_scratch(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    train, val = write_set(tmp_path / "set", 12, 10)  # of each of four directions
    places = {"train": train, "val": val, "cache": tmp_path / "cache"}
    text = COMMON.format(**places)
    for name, source in (("tuned", "own"), ("scratch", "none")):
        text += TUNED.format(name=name, source=source, **places)
    plan = tmp_path / "plan.toml"
    plan.write_text(text)
    rows = {row.stage: row for row in run_plan(read_plan(plan), tmp_path / "out", log=quiet)}
    assert rows["tuned"].steps == rows["scratch"].steps == 18
    for stage, kind in (("", "validation"), ("-test", "test")):
        tuned, scratch = (getattr(rows[name + stage], kind) for name in ("tuned", "scratch"))
        assert tuned.videos == scratch.videos == 40
        assert tuned.top1 >= 0.7, (tuned, scratch)  # chance is 0.25; it was 0.98
        assert tuned.top1 >= scratch.top1 + 0.2, (tuned, scratch)  # it was 0.25
