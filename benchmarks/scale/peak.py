"""The most that a process holds within a step, counted tensor by tensor, beside the plan's formula.

    python -m benchmarks peak

Real steps of a small model on the CPU, over gloo, in each layout: every storage that is there is
looked up at each operation, those that FSDP gathers and frees too. Blocks are large beside their
clips, so that what is counted is weights, gradients, moments and what is gathered of them. Bytes,
no times: on a GPU they are the same tensors, by the allocator's rounding larger. Writes JSON and a
table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Self
from unittest.mock import patch
from weakref import ref

import torch
from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.common.command import command_of, parser_of, results_folder
from benchmarks.common.record import environment, stamp, write
from benchmarks.scale.cluster import Layout, Model, states
from benchmarks.scale.equality import in_processes
from benchmarks.scale.layouts import config_of, laid_out, new_step, trained
from videomae_fast.models.transformer import Block
from videomae_fast.tasks.pretraining import build_model
from videomae_fast.training.parallel.fsdp import local
from videomae_fast.training.parallel.world import World

SMALL: Final[dict[str, Any]] = {"width": 384, "heads": 6, "depth": 6, "layer_scale": 0.0}
"""Its clips take a fiftieth of its states."""


GATHERED: Final = {"fp32": 4, "bf16": 2}
"""Bytes of a weight that is gathered."""


class Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that it saw and that are there, at each operation.

    A storage counts with the size that it has now: FSDP frees one by making it empty.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sizes: dict[int, int] = {}
        self._seen: dict[int, ref[UntypedStorage]] = {}
        self._gone: list[int] = []
        self._now = self.most = 0
        for tensor in tensors:
            self._see(local(tensor).untyped_storage())

    def _see(self, storage: UntypedStorage) -> None:
        self._forget()
        key, size = id(storage), storage.nbytes()
        if key not in self._seen:
            self._seen[key] = ref(storage, lambda _: self._gone.append(key))
        self._now += size - self._sizes.get(key, 0)
        self._sizes[key] = size

    def _forget(self) -> None:
        """Takes off what is gone: a storage may go at any moment, in the middle of a sum."""
        while self._gone:
            key = self._gone.pop()
            del self._seen[key]
            self._now -= self._sizes.pop(key)

    def __enter__(self) -> Self:
        resize = UntypedStorage.resize_

        def resized(storage: UntypedStorage, size: int) -> UntypedStorage:
            resize(storage, size)
            self._see(storage)
            return storage

        self._patched = patch.object(UntypedStorage, "resize_", resized)
        self._patched.start()  # no operation tells of it
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._patched.stop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves((args, kwargs, out)):
            if isinstance(each, Tensor):
                self._see(local(each).untyped_storage())
        self._forget()
        self.most = max(self.most, self._now)
        return out


def counted(options: dict[str, Any], world: World) -> dict[str, Any]:
    """The most within the second step, of any process, and what it holds between steps."""
    step = new_step(config_of(**SMALL, **options), world)
    trained(step, world, 1)
    kept = [*step.model.parameters(), *step.model.buffers()]
    kept += [s[k] for s in step.optimizer.state.values() for k in ("exp_avg", "exp_avg_sq")]
    with Peak(kept) as peak:
        trained(step, world, 1)
    held = sum(local(tensor).nbytes for tensor in kept)
    return {"peak": max(world.gather(peak.most)), "between_steps": max(world.gather(held))}


def described(precision: str) -> Model:
    """The model in the plan's terms."""
    model = build_model(config_of(**SMALL))
    sizes = [
        sum(p.numel() for p in module.parameters())
        for module in model.modules()
        if isinstance(module, Block)
    ]
    total = sum(p.numel() for p in model.parameters())
    return Model(total, max(sizes), sum(sizes), len(sizes), gathered=GATHERED[precision])


def compared(found: dict[str, Any], model: Model, processes: int) -> dict[str, Any]:
    """What was counted in each layout beside what is planned, in bytes.

    Args:
        found: of each layout, from :func:`counted`.
        model: in the plan's terms.
        processes: that held it.
    """
    every = {}
    for name, options in laid_out(processes).items():
        shard = {"all": processes, None: 1}.get(options.get("shard")) or int(options["shard"])
        layout = Layout(processes, shard, options.get("reshard") == "yes")
        own, planned = 16 * model.parameters / shard, states(model, layout)
        every[name] = {
            **found[name],
            "own": own,
            "planned": planned,
            "of_planned": found[name]["peak"] / planned,
            "beside_own": found[name]["peak"] - own,
            "beside_own_planned": planned - own,
        }
    return every


def table(record: dict[str, Any]) -> str:
    """Markdown: a line for each number of processes and layout."""
    model = next(iter(record["model"].values()))
    lines = [
        f"A model of {model['parameters'] / 1e6:.1f} million parameters, CPU, gloo, "
        f"torch {record['versions']['torch']}: MB of the process that held most.",
        "",
        "| precision | processes | layout | own states | most at once | planned | most ÷ planned "
        "| beside own states | planned |",
        "|-|-:|-|-:|-:|-:|-:|-:|-:|",
    ]
    for processes, precisions in record["found"].items():
        for precision, every in precisions.items():
            for name, one in every.items():
                lines.append(
                    f"| {precision} | {processes} | {name} | {one['own'] / 1e6:.1f} "
                    f"| {one['peak'] / 1e6:.1f} | {one['planned'] / 1e6:.1f} "
                    f"| {one['of_planned']:.2f} | {one['beside_own'] / 1e6:.1f} "
                    f"| {one['beside_own_planned'] / 1e6:.1f} |"
                )
    return "\n".join(lines)


def arguments() -> argparse.ArgumentParser:
    """The parser of ``peak``."""
    parser = parser_of("peak", __doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4], help="default: 2 4")
    told = "default: fp32 and bf16"
    parser.add_argument("--precision", choices=GATHERED, nargs="+", default=[*GATHERED], help=told)
    return parser


def main(words: Sequence[str]) -> int:
    args = arguments().parse_args(words)
    every = {n: in_processes(n, "benchmarks.scale.peak", *args.precision) for n in args.processes}
    record = {
        "kind": "peak",
        **environment("cpu", command_of("peak", words)),
        "settings": SMALL,
        "model": {name: asdict(described(name)) for name in args.precision},
        "found": {
            str(n): {name: compared(found[name], described(name), n) for name in args.precision}
            for n, found in every.items()
        },
    }
    path = write(record, results_folder(args) / f"peak-cpu-{stamp()}.json")
    text = table(record)
    path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    print(f"{text}\n\n{path}")
    return 0


def rank(words: list[str]) -> None:
    """Writes what the layouts of so many processes came to. words: the file, the precisions."""
    torch.set_num_threads(1)
    world = World.start("cpu")
    found = {
        precision: {
            name: counted({**options, "precision": precision}, world)
            for name, options in laid_out(world.size).items()
        }
        for precision in words[1:]
    }
    if world.is_main:
        Path(words[0]).write_text(json.dumps(found))
    world.close(together=True)


if __name__ == "__main__":
    rank(sys.argv[1:])
