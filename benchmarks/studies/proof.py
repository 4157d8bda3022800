"""What ``accelerate``'s proof costs, and what it looks at in each call.

    python -m benchmarks proof --size base

Hugging Face's models of that size: seconds of ``accelerate`` with the proof, and milliseconds of
looking at all blocks as each forward pass does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from benchmarks.common.command import command_of, parser_of, results_folder
from benchmarks.common.record import environment, stamp, write
from benchmarks.measure.timing import Summary
from videomae_fast import MAEConfig, accelerate

CALLS = 30


def arguments() -> argparse.ArgumentParser:
    """The parser of ``proof``."""
    parser = parser_of("proof", __doc__, tiny=True, device="cpu", size="base", threads=2)
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    return parser


def models(config: MAEConfig, device: str) -> dict[str, nn.Module]:
    """Hugging Face's pre-training model and classifier."""
    import transformers

    settings = transformers.VideoMAEConfig(
        image_size=config.image_size,
        patch_size=config.patch_size,
        num_frames=config.frames,
        hidden_size=config.width,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        intermediate_size=config.hidden,
        decoder_hidden_size=config.decoder_width,
        decoder_num_hidden_layers=config.decoder_depth,
        decoder_num_attention_heads=config.decoder_heads,
        decoder_intermediate_size=config.decoder_hidden,
    )
    kinds = ("VideoMAEForPreTraining", "VideoMAEForVideoClassification")
    return {kind: getattr(transformers, kind)(settings).to(device) for kind in kinds}


def row(name: str, model: nn.Module, rounds: int) -> dict[str, Any]:
    """Times of one model, which is given its own computation back."""
    proofs = []
    for _ in range(rounds):
        report = accelerate(model)
        assert report.proof is not None
        proofs.append(report.proof)
        report.undo()
    report = accelerate(model, prove=False)
    looks = looking(model)
    report.undo()
    return {
        "model": name,
        "proof_s": asdict(Summary.of([proof.seconds for proof in proofs])),
        "proof": asdict(proofs[-1]),
        "looking_s": asdict(looks),
    }


def looking(model: nn.Module) -> Summary:
    """Seconds of looking at every block, as a forward pass does."""
    from videomae_fast.interop.acceleration.hugging_face_blocks import HUGGING_FACE
    from videomae_fast.interop.acceleration.retype import is_form

    layers = [m for m in model.modules() if type(m).__name__ == "VideoMAELayer" and is_form(m)]
    seconds = []
    for _ in range(CALLS):
        start = time.perf_counter()
        for layer in layers:
            assert HUGGING_FACE.why_not(layer) is None
            assert not HUGGING_FACE.kept(layer)
        seconds.append(time.perf_counter() - start)
    return Summary.of(seconds)


def main(argv: Sequence[str]) -> int:
    """Writes the record and a table.

    Returns:
        0.
    """
    args = arguments().parse_args(argv)
    torch.set_num_threads(args.threads)
    config = MAEConfig.from_size(args.size)
    if args.tiny:
        config = MAEConfig(image_size=32, frames=4, width=64, depth=2, heads=2, decoder_width=32,
                           decoder_depth=2, decoder_heads=2)  # fmt: skip
    rows = [row(name, m, args.rounds) for name, m in models(config, args.device).items()]
    size = "tiny" if args.tiny else args.size
    record = {
        "kind": "proof",
        **environment(args.device, command_of("proof", argv)),
        "size": size,
        "rows": rows,
    }
    where = args.device.split(":")[0]
    path = write(record, results_folder(args) / f"proof-{size}-{where}-{stamp()}.json")
    for each in rows:
        proof, looks = each["proof_s"]["median"], each["looking_s"]["median"]
        print(f"{each['model']:34}{proof:7.2f} s proof{1e3 * looks:8.2f} ms a forward pass")
    print(path)
    return 0
