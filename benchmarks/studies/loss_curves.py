"""Two training runs on the same clips and masks: the official computation and ours, loss by loss.

    python -m benchmarks loss-curves --size small --steps 300 --batch 32 --device cuda
    python -m benchmarks loss-curves --tiny --steps 300
    python -m benchmarks loss-curves --steps 200 --ours bf16    # what bf16 does to the curve

Both start from the same weights and take the same learning rates; each is updated by its own
gradients and optimizer, so what one of them does differently adds up. The clips are rendered
scenes. Writes JSON and a plot. Rounding alone drives two such runs apart in time: compare with the
distance of the official computation from itself at another precision or summation order.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.command import command_of, parser_of, results_folder
from benchmarks.common.record import environment, stamp, write
from benchmarks.common.workload import Workload
from benchmarks.contenders.base import AUTOCAST, BETAS, WEIGHT_DECAY
from benchmarks.official.model import OfficialPretraining
from benchmarks.official.step import normalized_images, parameter_groups, pretraining_loss
from benchmarks.studies.study import TINY
from videomae_fast import MAEConfig, MaskedAutoencoder, Masks
from videomae_fast.demo.scenes import frames as scene
from videomae_fast.training import optimizer as adamw
from videomae_fast.training.schedule import Schedule


def arguments() -> argparse.ArgumentParser:
    """The parser of ``loss-curves``."""
    parser = parser_of(
        "loss-curves", __doc__, tiny=True, device="cpu", size="small", batch=8, threads=2, seed=0
    )
    parser.add_argument("--steps", type=int, default=300, help="default: 300")
    parser.add_argument("--clips", type=int, default=64, help="rendered clips; default: 64")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="peak; default: 1e-3")
    parser.add_argument("--precision", choices=AUTOCAST, default="fp32", help="default: fp32")
    parser.add_argument("--ours", choices=AUTOCAST, help="precision of ours; default: of both")
    return parser


def clips_of(config: MAEConfig, count: int, seed: int) -> Tensor:
    """Rendered clips with a little noise, uint8 [count, T, H, W, 3].

    Without the noise some cubes are flat, and their targets in the official computation are the
    rounding errors of its normalised clips, divided by next to nothing.
    """
    assert isinstance(config.image_size, int)
    made = [
        np.stack(list(scene(seed, n, size=config.image_size, count=config.frames, fps=12)))
        for n in range(count)
    ]
    clean = torch.from_numpy(np.stack(made)).int()
    noise = torch.randint(-2, 3, clean.shape, generator=torch.Generator().manual_seed(seed))
    return (clean + noise).clamp(0, 255).to(torch.uint8)


def run(args: argparse.Namespace, command: list[str]) -> dict[str, Any]:
    """Both runs; a record with the loss of each step."""
    torch.set_num_threads(args.threads)
    config = TINY if args.tiny else MAEConfig.from_size(args.size)
    workload = Workload(config, args.batch, seed=args.seed, device=args.device)
    spec, grid, device = workload.spec("dual"), config.grid, torch.device(args.device)
    ours, official = MaskedAutoencoder(config), OfficialPretraining(config)
    for model in (ours, official):
        model.load_state_dict(workload.state)
        model.to(device).train()
    optimizers: list[torch.optim.Optimizer] = [
        adamw.make_optimizer(
            adamw.parameter_groups(ours, WEIGHT_DECAY, {"mask_token"}), betas=BETAS
        ),
        torch.optim.AdamW(parameter_groups(official, WEIGHT_DECAY), betas=BETAS),
    ]
    schedule = Schedule(args.learning_rate, args.learning_rate / 100, args.steps // 10, args.steps)
    clips, draw = clips_of(config, args.clips, args.seed), torch.Generator().manual_seed(args.seed)
    precision = args.ours or args.precision
    autocast, lowered = AUTOCAST[args.precision], AUTOCAST[precision]
    losses: dict[str, list[float]] = {"official": [], "ours": []}
    for step in range(args.steps):
        chosen = torch.randint(len(clips), (args.batch,), generator=draw)
        frames = clips[chosen]
        masks = Masks.from_seeds(torch.randint(2**62, (args.batch,), generator=draw), grid, spec)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = schedule(step)
            optimizer.zero_grad()
        with torch.autocast(device.type, lowered or torch.bfloat16, enabled=lowered is not None):
            loss = ours(frames.to(device), masks.to(device)).loss
        encoder_mask, decoder_mask = masks.to_bool()
        truth = pretraining_loss(
            official,
            normalized_images(frames).to(device),
            encoder_mask.to(device),
            decoder_mask.to(device),
            tubelet=config.tubelet_size,
            patch=config.patch_size,
            autocast=autocast,
        )
        for one, optimizer in ((loss, optimizers[0]), (truth, optimizers[1])):
            torch.autograd.backward(one)
            optimizer.step()
        losses["ours"].append(float(loss.detach()))
        losses["official"].append(float(truth.detach()))
        if (step + 1) % max(1, args.steps // 10) == 0:
            print(f"step {step + 1}/{args.steps}: official {losses['official'][-1]:.5f}, "
                  f"ours {losses['ours'][-1]:.5f}", flush=True)  # fmt: skip
    return {
        "benchmark": "loss-curves",
        **environment(args.device, command),
        "workload": workload.describe(),
        "precision": args.precision,
        "precision of ours": precision,
        "clips": args.clips,
        "learning_rate": args.learning_rate,
        "losses": losses,
    }


def apart(record: dict[str, Any]) -> float:
    """The largest relative difference of the two losses of a step."""
    losses = record["losses"]
    pairs = zip(losses["official"], losses["ours"], strict=True)
    return float(max(abs(ours - official) / abs(official) for official, ours in pairs))


def plot(record: dict[str, Any], path: Path) -> Path:
    """Both curves, and below them their relative difference by step."""
    from matplotlib.figure import Figure

    losses = record["losses"]
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    official = f"official computation, {record['precision']}"
    ours = f"ours, {record['precision of ours']}"
    above.plot(losses["official"], color="#9aa5b1", linewidth=4, label=official)
    above.plot(losses["ours"], color="#1f77b4", linewidth=1.2, label=ours)
    above.set_ylabel("loss")
    above.legend(frameon=False)
    difference = [
        abs(a - b) / abs(a) for a, b in zip(losses["official"], losses["ours"], strict=True)
    ]
    below.semilogy([max(value, 1e-9) for value in difference], color="#555555", linewidth=0.8)
    below.set(xlabel="step", ylabel="relative\ndifference")
    figure.savefig(path, dpi=150)
    return path


def main(words: Sequence[str]) -> int:
    """Runs both, and writes record and plot.

    Returns:
        0.
    """
    args = arguments().parse_args(words)
    record = run(args, command_of("loss-curves", words))
    size = "tiny" if args.tiny else args.size
    precision = "-".join(dict.fromkeys((args.precision, args.ours or args.precision)))
    name = f"loss-curves-{size}-{precision}-{args.device.replace(':', '')}-{stamp()}"
    path = write(record, results_folder(args) / f"{name}.json")
    plot(record, path.with_suffix(".png"))
    print(f"largest relative difference of a step: {apart(record):.1e}; {path}")
    return 0
