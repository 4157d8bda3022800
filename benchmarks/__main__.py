"""Every benchmark by one command: ``python -m benchmarks COMMAND --help`` lists its options."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

# Module under benchmarks, whose main(words) returns the exit status; what it is for
COMMANDS: dict[str, tuple[str, str]] = {
    "step": ("studies.step", "one training step against the official one; a profile; memory"),
    "finetune-step": ("studies.finetune_step", "a fine-tuning step against the official one"),
    "paper": ("studies.paper", "the paper's table of dual masking, measured"),
    "breakdown": ("studies.breakdown", "what each gain is worth"),
    "ablation": ("studies.ablation", "cost by decoder mask, batch, frames, resolution, size"),
    "drop-in": ("studies.drop_in", "other code as it is, accelerated, and ours"),
    "proof": ("studies.proof", "what accelerate's proof costs, and its looks in each call"),
    "features": ("studies.features", "windows per second of features, against the official script"),
    "distillation": ("studies.distillation", "a student by a teacher, and by labels alone"),
    "loss-curves": ("studies.loss_curves", "training runs of both, loss by loss"),
    "demo-seeds": ("studies.demo_seeds", "the demo over several seeds: losses, accuracies, time"),
    "gestures": ("gestures.study", "what pre-training on a small set's own clips is worth"),
    "study": ("study.command", "the papers' tables in miniature: masks, decoder, labels"),
    "reading": ("reading.speed", "reading videos, against the official path"),
    "augment": ("reading.augmenting", "training clips of fine-tuning, against the official chain"),
    "reading-versions": ("reading.versions", "reading files with two versions, in turns"),
    "ops": ("ops.speed", "each op by itself, every backend"),
    "attention-choice": ("ops.attention_choice", 'the table that attention\'s "auto" goes by'),
    "launch-choice": ("ops.launch_choice", "other block sizes and warps of the Triton kernels"),
    "host-time": ("ops.host_time", "what an op's eager call costs on the host"),
    "machine-code": ("ops.machine_code", "what the compiler made of the kernels; no GPU needed"),
    "plan": ("scale.plan", "a run on many GPUs: memory, bytes moved, step time; no GPU needed"),
    "equality": ("scale.equality", "losses on 1, 2 and 4 processes in every layout; no GPU needed"),
    "held": ("scale.held", "the most that a GPU of many holds of a full model; no GPU needed"),
    "peak": ("scale.peak", "the most that a sharded step holds, beside the plan; no GPU needed"),
    "stores": ("scale.stores", "many rows, and a network that fails; no GPU needed"),
    "gpu": ("gpu.first_minutes", "the first minutes on a GPU, what is worth most first"),
    "ceilings": ("gpu.ceilings", "what a GPU can do, and what the baselines make of it"),
    "kernel-profile": ("gpu.kernel_profile", "our step kernel by kernel, the model beside it"),
    "step-table": ("gpu.step_table", "our step now and before, counted and modelled"),
    "commit": ("common.commit", "the commit, for a copy of the tree without .git"),
    "wheels": ("gpu.wheels", "packages for a machine without an index"),
    "checkouts": ("checkouts.run", "other people's scripts, as they are and accelerated"),
    "report": ("report.records", "tables from recorded results"),
    "plots": ("report.plots", "plots from recorded results"),
    "readme": ("report.readme", "the README's tables from the newest results"),
}


def usage() -> str:
    """How to call it, and what each command is for."""
    rows = "\n".join(f"  {name:18}{told}" for name, (_, told) in COMMANDS.items())
    return f"usage: python -m benchmarks COMMAND ...\n\n{__doc__}\n\n{rows}"


def main(argv: Sequence[str]) -> int:
    """Runs the command that the first word names, with the others.

    Returns:
        The command's exit status; 2 where there is none of this name.
    """
    name = argv[0] if argv else ""
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name not in COMMANDS:
        near = get_close_matches(name.replace("_", "-"), COMMANDS, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        why = f"no command {name!r}{meant}" if name else "a command is needed"
        print(f"{usage()}\n\nerror: {why}", file=sys.stderr)
        return 2
    module = import_module(f"benchmarks.{COMMANDS[name][0]}")  # the others need what it may not
    status: int = module.main(argv[1:])
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
