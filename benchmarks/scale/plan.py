"""Plans a run on many GPUs: memory, bytes moved, step time and clips/s, before any is rented.

Modelled, by the formulas of benchmarks/scale/cluster.py: times to about 30 %, the network's part of
them to a factor of 2. The time of a clip is modelled from the step's bytes and flop, or given as it
was measured (--clip-ms, --update-ms). No GPU is needed.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, get_args

from benchmarks.common.workload import MASKINGS, Masking, Workload
from benchmarks.scale.cluster import CARDS, Card, Layout, Model, moved, states, step
from benchmarks.scale.kept import Keeping, per_clip

# Its copies and matmuls, as a training step reaches them: bytes and flop per second
_RATES = {"H100": (3.0e12, 700e12), "H200": (4.3e12, 700e12)}
_SWITCH = "TRITON_INTERPRET"
_FREE = 0.93  # of a card's memory; the rest is the context's, NCCL's and lost between blocks


@dataclass(frozen=True)
class Clip:
    """What a clip costs a GPU.

    seconds: of forward and backward pass; update: of a whole AdamW step; kept: bytes kept for the
    backward pass, by what is kept.
    """

    seconds: float
    update: float
    kept: dict[Keeping, float]


def rows(
    model: Model, clip: Clip, card: Card, layouts: Sequence[Layout], clips: int
) -> Iterator[dict[str, Any]]:
    """A row for each layout, in SI units.

    Args:
        model, clip, card: what is trained on what.
        layouts: to plan for.
        clips: of a GPU and step.
    """
    for layout in layouts:
        time = step(model, layout, card, compute=clips * clip.seconds, update=clip.update)
        held = states(model, layout)
        yield {
            "gpus": layout.gpus,
            "clips_per_gpu": clips,
            "layout": layout.name,
            "states": held,
            "memory": {keeping: held + clips * kept for keeping, kept in clip.kept.items()},
            "fits": {
                k: held + clips * kept <= _FREE * card.memory for k, kept in clip.kept.items()
            },
            "moved": moved(model, layout),
            "forward": time.forward,
            "backward": time.backward,
            "exposed": time.exposed,
            "step": time.total,
            "clips_per_s": layout.gpus * clips / time.total,
            "efficiency": time.efficiency,
        }


def table(planned: Sequence[dict[str, Any]], card: Card) -> str:
    """Markdown: a line for each row."""
    keepings = list(planned[0]["memory"])
    heads = "".join(f" {'all kept' if k == 'all' else k} |" for k in keepings)
    lines = [
        f"Modelled, {card.name}: memory per GPU in GB, ! where it is more than {_FREE:.0%} of "
        f"{card.memory / 1e9:.0f} GB.",
        "",
        f"| GPUs × clips | layout | states |{heads} moved, GB | comm fw / bw, ms | exposed, ms "
        "| step, ms | clips/s | passes ÷ step |",
        "|-|-|-:|" + "-:|" * len(keepings) + "-:|-:|-:|-:|-:|-:|",
    ]
    for row in planned:
        memory = "".join(
            f" {row['memory'][k] / 1e9:.0f}{'' if row['fits'][k] else ' !'} |" for k in keepings
        )
        lines.append(
            f"| {row['gpus']} × {row['clips_per_gpu']} | {row['layout']} "
            f"| {row['states'] / 1e9:.1f} |{memory} {row['moved'] / 1e9:.1f} "
            f"| {row['forward'] * 1e3:.0f} / {row['backward'] * 1e3:.0f} "
            f"| {row['exposed'] * 1e3:.1f} | {row['step'] * 1e3:.0f} | {row['clips_per_s']:,.0f} "
            f"| {row['efficiency']:.0%} |"
        )
    return "\n".join(lines)


def layout_of(word: str, gpus: int, per_node: int) -> Layout:
    """The layout that a word means: none, node, all, or a number; "+reshard" behind it.

    Raises:
        ValueError: none of these, or numbers that don't divide.
    """
    name, _, reshard = word.partition("+")
    if reshard not in ("", "reshard"):
        raise ValueError(f"layout {word!r}: only +reshard goes behind it")
    shard = {"none": 1, "node": min(per_node, gpus), "all": gpus}.get(name)
    if shard is None:
        if not name.isdigit():
            raise ValueError(f"layout {word!r}: none, node, all or a number of GPUs")
        shard = int(name)
    return Layout(gpus, shard, bool(reshard))


def describe(workload: Workload) -> Model:
    """A model's numbers, as FSDP sees it."""
    import torch

    from videomae_fast import MaskedAutoencoder
    from videomae_fast.models.transformer import Block

    with torch.device("meta"):
        model = MaskedAutoencoder(workload.config)
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    sizes = [sum(p.numel() for p in block.parameters()) for block in blocks]
    total = sum(p.numel() for p in model.parameters())
    return Model(total, max(sizes), sum(sizes), len(sizes))


def _clip(
    args: argparse.Namespace, workload: Workload, masking: Masking, kept: dict[Keeping, float]
) -> Clip:
    seconds, update = args.clip_ms, args.update_ms
    if seconds is None or update is None:
        from benchmarks.gpu.calls import Ceilings
        from benchmarks.gpu.step_model import modelled_step

        card = Ceilings(args.card, *_RATES[args.card])
        calls = modelled_step(workload, masking)
        times = {True: 0.0, False: 0.0}
        for call in calls:
            times[call.phase == "update"] += call.modelled(card) * 1e3
        seconds = times[False] / workload.batch if seconds is None else seconds
        update = times[True] if update is None else update
    return Clip(seconds / 1e3, update / 1e3, kept)


def arguments() -> argparse.ArgumentParser:
    from videomae_fast.models.config import SIZES

    parser = argparse.ArgumentParser(prog="python -m benchmarks plan", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--size", choices=SIZES, default="giant", help="of the model")
    for name in ("width", "depth", "heads"):
        parser.add_argument(f"--{name}", type=int, help="of the encoder; default: the size's")
    parser.add_argument("--masking", choices=MASKINGS, default="dual")
    parser.add_argument("--card", choices=CARDS, default="H100")
    parser.add_argument("--memory-gb", type=float, help="of a GPU; default: the card's")
    parser.add_argument("--per-node", type=int, default=8, help="GPUs of a node; default: 8")
    parser.add_argument("--gpus", type=int, nargs="+", default=[64, 512], help="in all")
    parser.add_argument("--clips", type=int, nargs="+", default=[128, 16], help="of a GPU and step")
    told = "none (DDP), node, all or a number of GPUs that share one copy; +reshard behind it"
    default = ["none", "node", "node+reshard", "all+reshard"]
    parser.add_argument("--layouts", nargs="+", default=default, help=told)
    told = "for the backward pass: all, or what --recompute or --activation-checkpointing leave"
    keepings = get_args(Keeping)
    parser.add_argument("--keep", nargs="+", choices=keepings, default=keepings, help=told)
    parser.add_argument("--clip-ms", type=float, help="of a clip, measured; default: modelled")
    parser.add_argument("--update-ms", type=float, help="of AdamW, measured; default: modelled")
    parser.add_argument("--json", action="store_true", help="print JSON, in bytes and seconds")
    return parser


@contextmanager
def _interpreted() -> Iterator[None]:
    """Nothing runs here; but without its switch Triton refuses tensors that lie on the CPU."""
    before = os.environ.get(_SWITCH)
    os.environ.setdefault(_SWITCH, "1")
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SWITCH]


def main(argv: Sequence[str]) -> int:
    from dataclasses import replace

    from videomae_fast import MAEConfig

    parser = arguments()
    args = parser.parse_args(argv)
    if len(args.gpus) != len(args.clips):
        parser.error("--gpus and --clips go in pairs")
    if min(*args.gpus, *args.clips, args.per_node) < 1:
        parser.error("--gpus, --clips and --per-node are at least 1")
    changed = {k: v for k in ("width", "depth", "heads") if (v := getattr(args, k)) is not None}
    card = replace(CARDS[args.card], per_node=args.per_node)
    if args.memory_gb is not None:
        card = replace(card, memory=args.memory_gb * 1e9)
    try:
        config = MAEConfig.from_size(args.size, **changed)
        layouts = [
            [layout_of(word, gpus, card.per_node) for word in args.layouts] for gpus in args.gpus
        ]
    except ValueError as error:
        parser.error(str(error))
    planned: list[dict[str, Any]] = []
    with _interpreted():
        kept = {keeping: per_clip(config, keeping, args.masking) for keeping in args.keep}
        for group, clips in zip(layouts, args.clips, strict=True):
            workload = Workload(config, clips)
            clip = _clip(args, workload, args.masking, kept)
            planned += rows(describe(workload), clip, card, group, clips)
    print(json.dumps(planned, indent=1) if args.json else table(planned, card))
    return 0
