"""Steps of a tiny model in several processes, in every layout of its states, from the same clips.

``python -m benchmarks equality`` starts this under torchrun; it writes, as JSON, what the steps of
each variant gave. One launch makes all, since starting processes takes longer than their steps.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from videomae_fast.data import ClipBatch
from videomae_fast.recipes import PretrainConfig, changed
from videomae_fast.recipes.plain import from_flat
from videomae_fast.tasks.pretraining import Reconstruction, build_model, settings_of
from videomae_fast.training.parallel.fsdp import local
from videomae_fast.training.parallel.layout import choose_layout
from videomae_fast.training.parallel.world import World
from videomae_fast.training.step import TrainStep

RATE: Final = 1e-2
CLIPS: Final = 8
BASE: Final[dict[str, Any]] = {
    "size": "small", "image_size": 32, "frames": 4, "width": 32, "depth": 2, "heads": 2,
    "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 1, "layer_scale": 0.1,
    "encoder_mask_ratio": 0.5, "videos_per_step": CLIPS, "samples_per_video": 1, "device": "cpu",
}  # fmt: skip
MASKS: Final[dict[str, dict[str, Any]]] = {
    "dual": {},
    "random": {"decoder_mask": "random", "encoder_mask": "random"},
}
LAYOUTS: Final[dict[str, dict[str, Any]]] = {
    "ddp": {},
    "all, yes": {"shard": "all", "reshard": "yes"},
    "all, no": {"shard": "all", "reshard": "no"},
    "two, yes": {"shard": "2", "reshard": "yes"},
    "two, no": {"shard": "2", "reshard": "no"},
    "four, yes": {"shard": "4", "reshard": "yes"},
    "four, no": {"shard": "4", "reshard": "no"},
}
"""Who shards, and whether what is gathered is freed after each block."""

MORE: Final[dict[str, dict[str, Any]]] = {
    "drop path": {"drop_path": 0.2},
    "checkpointing": {"activation_checkpointing": True},
    "recompute": {"recompute": True},
    "learned positions": {"learned_positions": True},
}


def config_of(**options: Any) -> PretrainConfig:
    """The tiny run, with other values by their names on the command line."""
    return changed(PretrainConfig(), from_flat(PretrainConfig, {**BASE, **options}))


def batch(clips: int, seed: int, failed: tuple[int, ...] = ()) -> ClipBatch:
    """Clips of noise. failed: those that could not be read."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (clips, 4, 32, 32, 3), dtype=torch.uint8, generator=generator)
    ok = torch.tensor([clip not in failed for clip in range(clips)])
    frames[~ok] = 0
    seeds = torch.randint(2**62, (clips,), generator=generator)
    return ClipBatch(frames, seeds, ok, torch.full((clips,), -1), [])


def split(every: ClipBatch, parts: int) -> list[ClipBatch]:
    """A batch in parts of equal size, the last ones filled up with places that stay empty."""
    clips = every.ok.numel()
    places = -(-clips // parts)
    empty = torch.arange(places * parts) >= clips
    tensors = [
        torch.cat([tensor, tensor.new_zeros(int(empty.sum()), *tensor.shape[1:])]).chunk(parts)
        for tensor in (every.frames, every.mask_seeds, every.ok, every.labels)
    ]
    return [
        ClipBatch(frames, seeds, ok, labels, [])
        for frames, seeds, ok, labels in zip(*tensors, strict=True)
    ]


def batches(steps: int, first: int = 0) -> list[ClipBatch]:
    """Of all processes; clips of some can't be read, in step 0 all of the first of four."""
    failed = {0: (0, 1), 3: (5,), 4: (2, 3)}
    numbers = range(first, first + steps)
    return [batch(CLIPS, number, failed=failed.get(number, ())) for number in numbers]


def new_step(config: PretrainConfig, world: World) -> TrainStep[ClipBatch]:
    """A step in its layout, from the seed's weights."""
    settings, model = settings_of(config), build_model(config)
    layout = choose_layout(
        settings.shard, settings.reshard, model, world, bf16=False, log=lambda _: None
    )
    compiled = settings.step_mode == "compiled"
    objective = Reconstruction(config)
    return TrainStep(objective, model, settings, world, compiled=compiled, layout=layout)


def trained(
    step: TrainStep[ClipBatch], world: World, steps: int, first: int = 0
) -> list[tuple[float, float]]:
    """Loss and gradient norm of each step, from number `first` on."""
    found = []
    for number, every in enumerate(batches(steps, first), start=first):
        mine = split(every, world.size)[world.rank]
        for micro, part in enumerate(split(mine, step.settings.accumulation)):
            step.forward_backward(part, step=number, micro=micro)
        row = dict(zip(step.columns, step.update(RATE).tolist(), strict=True))
        found.append((row["loss_sum"] / row["loss_weight"], row["grad_norm"]))
    return found


def joined(tensors: Mapping[str, Tensor], step: TrainStep[ClipBatch]) -> dict[str, Tensor]:
    """All of each tensor, from the processes' parts, in one exchange; every process calls it."""
    own = {name: local(tensor.detach()).clone().numpy() for name, tensor in tensors.items()}
    first = step.world.gather(own)[: step.layout.shard]  # which hold one copy
    return {
        name: torch.from_numpy(
            np.concatenate([part[name] for part in first])
            if isinstance(tensor, DTensor)
            else own[name]
        )
        for name, tensor in tensors.items()
    }


def laid_out(size: int) -> dict[str, dict[str, Any]]:
    """The layouts that so many processes can have, each once."""

    def fits(shard: str | None) -> bool:
        if shard in (None, "all"):
            return shard is None or size > 1
        return size > int(shard) and size % int(shard) == 0

    return {name: options for name, options in LAYOUTS.items() if fits(options.get("shard"))}


def variants(size: int) -> dict[str, dict[str, Any]]:
    """Options by name, for a number of processes."""
    found = {}
    for name, layout in laid_out(size).items():
        for masks, masking in MASKS.items():
            for micro in (1, 2):
                found[f"{name}; {masks}; {micro}"] = {**layout, **masking, "accumulation": micro}
    for name, options in MORE.items():
        layout = LAYOUTS["ddp" if size == 1 else "all, yes"]
        found[name] = {**layout, **options}
    return found


def reference(name: str) -> str:
    """The variant of one process, in one micro-batch, that another is to equal."""
    _, _, masks_micro = name.partition("; ")
    return f"ddp; {masks_micro.partition('; ')[0]}; 1" if masks_micro else name


def main(words: list[str]) -> None:
    """Writes what all variants gave. words: the file, and the number of steps."""
    torch.set_num_threads(1)
    world = World.start("cpu")
    found = {}
    for name, options in variants(world.size).items():
        step = new_step(config_of(**options), world)
        steps = trained(step, world, int(words[1]))
        every = joined(step.model.state_dict(), step)
        found[name] = {
            "steps": steps,
            "weights": {name: tensor.flatten().tolist() for name, tensor in every.items()},
        }
    if world.is_main:
        Path(words[0]).write_text(json.dumps(found))
    world.close(together=True)


if __name__ == "__main__":
    main(sys.argv[1:])
