"""ViT-B of fewer blocks, as one of 64 processes of which there is none other: a step of tensors
without values.

``python -m tests.support.one_of_many`` prints, as JSON, the bytes that torch's tracker counts for a
process when its first backward pass is at its peak, and after the update.
"""

from __future__ import annotations

import json
import os
from typing import Any, Final
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from videomae_fast import MAEConfig, MaskedAutoencoder, Masks, MaskSpec
from videomae_fast.ops.registry import forced
from videomae_fast.training.parallel import fsdp
from videomae_fast.training.parallel.layout import Layout
from videomae_fast.training.parallel.world import World

PROCESSES: Final = 64
BLOCKS: Final = {"depth": 4, "decoder_depth": 1}


def counted(tracker: Any, when: str) -> dict[str, int]:
    (found,) = tracker.get_tracker_snapshot(when).values()
    return {getattr(kind, "name", str(kind)): size for kind, size in found.items()}


def main() -> None:
    os.environ["TRITON_INTERPRET"] = "1"  # else Triton refuses tensors on the CPU
    dist.init_process_group("fake", rank=1, world_size=PROCESSES, store=FakeStore())
    world = World(1, PROCESSES, torch.device("cpu"))
    mesh = init_device_mesh("cpu", (PROCESSES,), mesh_dim_names=("parts",))  # reads values
    config = MAEConfig.from_size("base", **BLOCKS)
    masks = Masks.from_seeds(torch.arange(1), config.grid, MaskSpec())
    with torch.device("meta"):
        model = MaskedAutoencoder(config)
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        patch.object(fsdp, "_check_average"),
        patch.object(fsdp, "_distribute"),
        patch.object(fsdp, "init_device_mesh", return_value=mesh),
        forced("auto", linear="torch", attention="reference"),
    ):
        fsdp.shard(model, Layout(PROCESSES, True), world, bf16=True, compiled=False)
        optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
        frames = torch.zeros(1, config.frames, 224, 224, 3, dtype=torch.uint8)
        tracker = FSDPMemTracker(model, optimizer)
        tracker.track_inputs((frames,))
        with tracker:
            model(frames, masks, gradient_scale=1.0).backward()
            peak = counted(tracker, "peak")
            optimizer.step()
            optimizer.zero_grad()
            after = counted(tracker, "current")
    print(json.dumps({"peak": peak, "after": after}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
