"""The most that one of many GPUs holds within a step of a model of full size, beside the plan.

    python -m benchmarks held --size giant --gpus 8 --clips 128

The step of the package as it trains, sharded, in bf16, as one of so many processes that talk to
nobody (torch's fake process group), on tensors that have no values: nothing is computed, every
storage is counted at each operation, those that FSDP gathers and frees too. Attention is the
reference's, whose scores are counted, and a Triton kernel has none. Bytes, no times. Writes JSON.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh

from benchmarks.common.command import command_of, parser_of, results_folder
from benchmarks.common.record import environment, stamp, write
from benchmarks.common.workload import Workload
from benchmarks.scale.cluster import Layout, states
from benchmarks.scale.kept import per_clip
from benchmarks.scale.peak import Peak
from benchmarks.scale.plan import describe
from videomae_fast import Masks
from videomae_fast.models.config import SIZES
from videomae_fast.ops.registry import forced
from videomae_fast.recipes import PretrainConfig, changed
from videomae_fast.recipes.plain import from_flat
from videomae_fast.tasks.pretraining import Reconstruction, build_model, settings_of
from videomae_fast.training.parallel import fsdp
from videomae_fast.training.parallel.fsdp import local
from videomae_fast.training.parallel.layout import Layout as Placed
from videomae_fast.training.parallel.world import World
from videomae_fast.training.step import TrainStep

_SWITCH: Final = "TRITON_INTERPRET"


def config_of(size: str, gpus: int, clips: int) -> PretrainConfig:
    """A run in bf16 whose steps give each of so many GPUs so many clips."""
    options = {"size": size, "precision": "bf16", "device": "cpu", "samples_per_video": 1}
    return changed(
        PretrainConfig(), from_flat(PretrainConfig, {**options, "videos_per_step": gpus * clips})
    )


def counted(config: PretrainConfig, gpus: int, reshard: bool) -> dict[str, int]:
    """Bytes of the main process: the most within a step, and what it holds between steps.

    Args:
        config: from :func:`config_of`.
        gpus: processes that hold one copy of the states together.
        reshard: gathered weights are freed after each block.
    """
    settings, objective = settings_of(config), Reconstruction(config)
    clips = settings.videos_per_step // gpus
    seeds = torch.arange(clips)
    masks = Masks.from_seeds(seeds, objective.grid, objective.spec)
    with torch.device("meta"), patch("torch.nn.init.trunc_normal_", lambda tensor, **_: tensor):
        model = build_model(config)
    with _one_of(gpus) as world, _without_values(masks):
        step = TrainStep(objective, model, settings, world, layout=Placed(gpus, reshard))
        shape = (clips, *_frames(objective))
        inputs: dict[str, Tensor] = {
            "frames": torch.zeros(shape, dtype=torch.uint8),
            "ok": torch.ones(clips, dtype=torch.bool),
            "mask_seeds": seeds,
        }
        kept = [*step.model.parameters(), *step.model.buffers()]
        kept += [s[k] for s in step.optimizer.state.values() for k in ("exp_avg", "exp_avg_sq")]
        held = sum(local(tensor).nbytes for tensor in kept)
        with Peak([*kept, *inputs.values()]) as peak:
            step._add_gradient(inputs, 0)
            step._apply_gradient()
    return {"peak": peak.most, "between_steps": held}


def _frames(objective: Reconstruction) -> tuple[int, int, int, int]:
    size = objective.shape.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return objective.shape.frames, height, width, 3


@contextmanager
def _one_of(gpus: int) -> Iterator[World]:
    """The main process of so many, of which the others are not there."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=gpus, store=FakeStore())
    try:
        yield World(0, gpus, torch.device("cpu"))
    finally:
        dist.destroy_process_group()


@contextmanager
def _without_values(masks: Masks) -> Iterator[None]:
    """Tensors are made without values; what would look at some is left out, as are kernels.

    Args:
        masks: of the clips.
    """
    import torch.distributed._tools.fake_collectives  # noqa: F401  (registers them)

    mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("parts",))
    left_out: tuple[tuple[Any, str, Any], ...] = (
        (Masks, "from_seeds", lambda *_: masks),
        (nn.Module, "to", lambda model, *_: model),  # it is on meta, and written from there
        (fsdp, "init_device_mesh", lambda *_, **__: mesh),
        (fsdp, "_check_average", lambda _: None),
        (fsdp, "_distribute", lambda *_: None),
        (fsdp, "remake_tables", lambda _: None),
    )
    with ExitStack() as entered:
        # Else operations refuse tensors of the CPU
        entered.enter_context(patch.dict(os.environ, {_SWITCH: os.environ.get(_SWITCH, "1")}))
        entered.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        entered.enter_context(forced("auto", linear="torch", attention="reference"))
        for where, name, instead in left_out:
            entered.enter_context(patch.object(where, name, instead))
        yield


def compared(size: str, gpus: int, clips: int, reshard: bool) -> dict[str, Any]:
    """What is counted beside what is planned, in bytes."""
    config = config_of(size, gpus, clips)
    workload = Workload(Reconstruction(config).shape, clips)
    layout = Layout(gpus, gpus, reshard)
    with patch.dict(os.environ, {_SWITCH: os.environ.get(_SWITCH, "1")}):
        model, kept = describe(workload), per_clip(workload.config, "all")
    planned = states(model, layout)
    found = counted(config, gpus, reshard)
    return {
        "size": size,
        "gpus": gpus,
        "clips": clips,
        "layout": layout.name,
        "parameters": model.parameters,
        **found,
        "between_steps_planned": 12 * model.parameters / gpus,
        "planned": planned + clips * kept,
        "states_planned": planned,
        "clips_planned": clips * kept,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: a line for each layout."""
    lines = [
        "GB of one GPU in bf16, counted on tensors without values.",
        "",
        "| model | GPUs × clips | layout | between steps | planned | most in a step | planned |",
        "|-|-|-|-:|-:|-:|-:|",
    ]
    lines += [
        f"| {one['size']} | {one['gpus']} × {one['clips']} | {one['layout']} "
        f"| {one['between_steps'] / 1e9:.2f} | {one['between_steps_planned'] / 1e9:.2f} "
        f"| {one['peak'] / 1e9:.1f} | {one['planned'] / 1e9:.1f} |"
        for one in rows
    ]
    return "\n".join(lines)


def arguments() -> argparse.ArgumentParser:
    """The parser of ``held``."""
    parser = parser_of("held", __doc__)
    parser.add_argument("--size", choices=SIZES, default="giant", help="of the model")
    parser.add_argument("--gpus", type=int, default=8, help="that hold one copy; default: 8")
    parser.add_argument("--clips", type=int, default=128, help="of a GPU and step; default: 128")
    return parser


def main(words: Sequence[str]) -> int:
    args = arguments().parse_args(words)
    rows = [compared(args.size, args.gpus, args.clips, reshard) for reshard in (False, True)]
    record = {"kind": "held", **environment("cpu", command_of("held", words)), "rows": rows}
    path = write(record, results_folder(args) / f"held-{args.size}-{stamp()}.json")
    text = table(rows)
    path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    print(f"{text}\n\n{path}")
    return 0
