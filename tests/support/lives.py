"""Two processes that save a sharded state again and again, until they are killed.

Processes are forked, since importing torch takes far longer than a life.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from videomae_fast.interop.weights.run_folders import read
from videomae_fast.training.checkpoint import checkpoints, newest
from videomae_fast.training.checkpoint.sharded import ShardedWriter
from videomae_fast.training.parallel.fsdp import local
from videomae_fast.training.parallel.world import World

STATE: dict[str, Any] = {"model": {}, "model_options": {}, "config": {}, "data": {}, "init": None}


def states(rank: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and moments in two parts, as a sharded model has them, without one: making it takes
    longer than a life. Of one row the second process has nothing."""
    mesh = init_device_mesh("cpu", (2,))

    def made(rows: int) -> Tensor:
        own = torch.zeros(rows // 2 if rank else -(-rows // 2), 16)
        shape = torch.Size((rows, 16))
        return DTensor.from_local(own, mesh, [Shard(0)], shape=shape, stride=(16, 1))

    model, moments = {}, {}
    for rows in (1, 5, 64, 65, 500):
        name = f"blocks.{rows}.weight"
        model[name] = made(rows)
        moments |= {f"exp_avg.{name}": made(rows), f"exp_avg_sq.{name}": made(rows)}
        moments[f"step.{name}"] = torch.zeros(())
    return model, moments


def life(rank: int, store: str, parent: Path, first: int) -> None:
    """Saves steps from `first` on, each with its number in every value; what is written while the
    next one is made must not show."""
    torch.set_num_threads(1)
    made = dist.FileStore(store, 2)
    dist.init_process_group(
        "gloo", store=made, rank=rank, world_size=2, timeout=timedelta(seconds=30)
    )
    world = World(rank, 2, torch.device("cpu"), dist.new_group(backend="gloo"), made)
    writer, (model, moments) = ShardedWriter(world), states(rank)
    for number in range(first, first + 1000):
        with torch.no_grad():
            for tensor in (*model.values(), *moments.values()):
                local(tensor).fill_(number)
        folder = parent / f"step-{number:08d}"
        writer.start(folder, model, moments, {**STATE, "step": number}, keep=2)


def main(words: list[str]) -> None:
    parent, lives, seed = Path(words[0]), int(words[1]), int(words[2])
    fork, moment = multiprocessing.get_context("fork"), random.Random(seed)
    parent.mkdir(parents=True, exist_ok=True)
    first = 1
    for number in range(lives):
        store = str(parent.parent / f"store-{number}")
        ranks = [fork.Process(target=life, args=(r, store, parent, first)) for r in range(2)]
        for each in ranks:
            each.start()
        deadline = time.monotonic() + 60
        while not (parent / f"step-{first:08d}").exists():
            assert time.monotonic() < deadline, "nothing was saved"
            time.sleep(0.002)
        time.sleep(moment.uniform(0, 0.3))
        for each in moment.sample(ranks, 2):
            assert each.pid is not None
            os.kill(each.pid, signal.SIGKILL)
        for each in ranks:
            each.join()
        for folder in checkpoints(parent):
            saved = read(folder)  # whatever has a checkpoint's name is one
            for tensors in (saved.model(), saved.optimizer()):
                values = {float(v) for t in tensors.values() for v in t.unique()}
                assert values == {saved.step}, (folder, values)
        found = newest(parent, print)
        assert found is not None
        print(f"life {number}: up to {found.step}, {len(list(parent.iterdir()))} entries")
        first = found.step + 1


if __name__ == "__main__":
    main(sys.argv[1:])
