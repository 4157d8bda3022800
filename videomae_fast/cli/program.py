"""``videomae-fast``: finds the subcommand, imports its module only then, and reports errors.

Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from videomae_fast import __version__
from videomae_fast.errors import VideoMAEFastError, did_you_mean

PROGRAM = "videomae-fast"


@dataclass(frozen=True)
class Command:
    """A subcommand: a module with ``add_arguments(parser)`` and ``run(args) -> int | None``."""

    module: str
    summary: str
    examples: str


COMMANDS: dict[str, Command] = {
    "pretrain": Command(
        "videomae_fast.cli.pretrain",
        "pre-train a model on lists of videos; resumes where it was stopped",
        """\
  videomae-fast pretrain --recipe vit_b_hybrid --data train.csv --output runs/base
  torchrun --nproc-per-node 8 -m videomae_fast pretrain --recipe vit_b_hybrid \\
      --data train.csv --output runs/base
  videomae-fast pretrain --recipe mine.toml --data train.csv --output runs/mine \\
      --set optim.base_lr=3e-4
  videomae-fast pretrain --help             every recipe and every field""",
    ),
    "finetune": Command(
        "videomae_fast.cli.finetune",
        "train a classifier on labelled videos, from pre-trained weights; resumes where it was "
        "stopped",
        """\
  videomae-fast finetune --recipe vit_b_k400_ft --init runs/base --data train.csv \\
      --validation val.csv --classes kinetics-400 --output runs/base-k400
  torchrun --nproc-per-node 8 -m videomae_fast finetune --recipe vit_b_k400_ft --init runs/base \\
      --data train.csv --validation val.csv --output runs/base-k400
  videomae-fast finetune --help             every recipe and every field""",
    ),
    "distill": Command(
        "videomae_fast.cli.distill",
        "train a small classifier on what a large one says of the same clips; resumes where it was "
        "stopped",
        """\
  videomae-fast distill --recipe vit_b_k710_from_g --teacher vit_g_k710.pth --init runs/base \\
      --data train.csv --validation val.csv --output runs/distilled
  videomae-fast distill --help              every recipe and every field""",
    ),
    "test": Command(
        "videomae_fast.cli.test",
        "score a classifier in several views of each video: accuracies, tables, a picture",
        """\
  videomae-fast test runs/base-k400/best.safetensors val.csv --output runs/base-k400/test
  torchrun --nproc-per-node 8 -m videomae_fast test vit_g_k400.pth val.csv --segments 5 --crops 3 \\
      --classes kinetics-400 --output vit_g_k400_test""",
    ),
    "detect": Command(
        "videomae_fast.cli.detect",
        "train and test a detector of what each person of a key frame does, as on AVA",
        """\
  videomae-fast detect train --recipe vit_b_ava_after_k400 --init runs/base-k400/best.safetensors \\
      --data train.csv,root=frames,begin=900 \\
      --validation val.csv,root=frames,begin=900,proposals=persons.csv \\
      --label-map actions.pbtxt --output runs/base-ava
  videomae-fast detect test runs/base-ava/best.safetensors \\
      val.csv,root=frames,begin=900,proposals=persons.csv --label-map actions.pbtxt \\
      --output runs/base-ava/test
  videomae-fast detect train --help         every recipe and every field""",
    ),
    "report": Command(
        "videomae_fast.cli.report",
        "show a run as one HTML page: curves, speed, accuracies, pictures, bad files, fields",
        """\
  videomae-fast report runs/base
  videomae-fast report runs/base-k400 --output base-k400.html""",
    ),
    "progressive": Command(
        "videomae_fast.cli.progressive",
        "run a plan: pre-training, fine-tuning and tests one after the other, weights handed on; "
        "goes on where it was stopped",
        """\
  videomae-fast progressive plan.toml --output runs/v2 --dry-run
  torchrun --nproc-per-node 8 -m videomae_fast progressive plan.toml --output runs/v2""",
    ),
    "recipes": Command(
        "videomae_fast.cli.recipes",
        "list the recipes with model, data, cost and score, or print the file of one",
        """\
  videomae-fast recipes
  videomae-fast recipes show vit_b_k400 > mine.toml""",
    ),
    "list": Command(
        "videomae_fast.cli.list",
        "make a list of the videos in a folder and the folders below it, with classes if asked to",
        """\
  videomae-fast list videos > train.csv
  videomae-fast list k400/train --labels --classes classes.txt --output train.csv""",
    ),
    "labels": Command(
        "videomae_fast.cli.labels",
        "merge the lists of several sets to one label space, with a report of what was left out",
        """\
  videomae-fast labels merge --train k400/train.csv,classes=kinetics-400 \\
      --train k600/train.csv,classes=kinetics-600 --train k700/train.csv,classes=kinetics-700 \\
      --validation k400/val.csv,classes=kinetics-400 --classes kinetics-710 --output k710""",
    ),
    "probe": Command(
        "videomae_fast.cli.probe",
        "look at every file of a list: codec, size, frames, rate, and whether it can be read",
        """\
  videomae-fast probe train.csv --output manifest.jsonl
  videomae-fast probe train.csv --output manifest.jsonl --decode --good-list readable.csv""",
    ),
    "prepare": Command(
        "videomae_fast.cli.prepare",
        "transcode a list's videos once to files that training reads quickly; goes on if stopped",
        """\
  videomae-fast prepare train.csv --output prepared
  videomae-fast prepare train.csv --output prepared --root /data/k400 --workers 32""",
    ),
    "store": Command(
        "videomae_fast.cli.store",
        "many videos in few files: make a store, add to it, look whether it is whole, write it as "
        "tar files",
        """\
  videomae-fast store import clips train.csv --format labels
  videomae-fast store import clips shards/*.tar
  videomae-fast store append clips more.csv --format labels
  videomae-fast store verify clips
  videomae-fast store export clips shards""",
    ),
    "cache": Command(
        "videomae_fast.cli.cache",
        "decode a list's videos once into a folder on a fast disk or in memory; goes on if stopped",
        """\
  videomae-fast cache train.csv --folder /dev/shm/frames --limit-gb 50
  videomae-fast cache prepared/train.csv --folder /nvme/frames --limit-gb 2000 --workers 32""",
    ),
    "reconstruct": Command(
        "videomae_fast.cli.reconstruct",
        "show what a pre-trained model makes of a masked video: a picture and an animation",
        """\
  videomae-fast reconstruct runs/base clip.mp4 --output pictures
  videomae-fast reconstruct runs/base/checkpoints/step-00001000 clip.mp4 --output pictures""",
    ),
    "features": Command(
        "videomae_fast.cli.features",
        "take features of videos with a frozen model: per window, time slot or token",
        """\
  videomae-fast features vit_g_hybrid_pt_1200e_k710_ft.pth videos features --preset thumos14
  videomae-fast features runs/base test.csv tokens --pooling tokens --layer 9 --stride 8""",
    ),
    "probe-features": Command(
        "videomae_fast.cli.probe_features",
        "train linear, attentive and nearest-neighbour probes on stored features, many rates at "
        "once",
        """\
  videomae-fast probe-features features train.csv val.csv --output probes.json
  videomae-fast probe-features train-features train.csv val.csv \\
      --validation-features val-features --rates 1e-2 1e-3 1e-4
  videomae-fast probe-features tokens train.csv val.csv --probe attentive --heads 12""",
    ),
    "convert": Command(
        "videomae_fast.cli.convert",
        "convert weights between the official layout, Hugging Face's and ours, key by key",
        """\
  videomae-fast convert runs/base base-hf --to hugging-face
  videomae-fast convert vit_g_hybrid_pt_1200e.pth vit_g_k400.safetensors --to ours \\
      --classifier --classes 400
  videomae-fast convert vit_g_hybrid_pt_1200e_k710_ft.pth vit_g_k400.pth --to official \\
      --head-index label_710to400.json""",
    ),
    "flops": Command(
        "videomae_fast.cli.flops",
        "count the multiply-adds of a forward pass, by part: the official code's and ours",
        """\
  videomae-fast flops --size base
  videomae-fast flops --size giant --decoder-mask-ratio 0.5 --json""",
    ),
    "doctor": Command(
        "videomae_fast.cli.doctor",
        "say what this machine has, which backends serve, and why others don't",
        """\
  videomae-fast doctor
  videomae-fast doctor --json > doctor.json""",
    ),
    "demo": Command(
        "videomae_fast.cli.demo",
        "render videos, pre-train a small model on them in minutes, and show what it learnt",
        """\
  videomae-fast demo
  videomae-fast demo --videos ~/Videos --output my-demo""",
    ),
}


class Parser(argparse.ArgumentParser):
    """argparse, with an error that is one sentence and says where to read on."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see: {self.prog} --help)\n")


def build_parser() -> tuple[Parser, dict[str, Parser]]:
    """The parser, and those of the subcommands, which have no arguments of their own yet."""
    parser = Parser(
        prog=PROGRAM,
        description="Pre-train VideoMAE and VideoMAE V2 on your videos, exactly as the papers "
        "define them, with less work.",
        epilog=f"examples:\n{COMMANDS['demo'].examples}\n{COMMANDS['pretrain'].examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of an error, not only its message"
    )
    choices = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    subparsers = {}
    for name, command in COMMANDS.items():
        subparsers[name] = choices.add_parser(
            name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            epilog=f"examples:\n{command.examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        # Also accepted after the subcommand; SUPPRESS keeps it from undoing the one before.
        subparsers[name].add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
    return parser, subparsers


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line (``sys.argv`` by default) and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser, subparsers = build_parser()
    name = next((word for word in words if not word.startswith("-")), None)
    if name is None:
        parser.parse_args(words)  # --help and --version end here
        print(parser.format_help(), file=sys.stderr, end="")
        return 2
    if name not in COMMANDS:
        parser.error(f"no command {name!r}{_did_you_mean(name, COMMANDS)}")
    debug = "--debug" in words
    try:
        module = importlib.import_module(COMMANDS[name].module)
        module.add_arguments(subparsers[name])
        args, unknown = parser.parse_known_args(words)
        if unknown:
            known = list(_options(subparsers[name]))
            hint = _did_you_mean(unknown[0], known)
            subparsers[name].error(f"unknown argument {unknown[0]!r}{hint}")
        code = module.run(args)
    except (VideoMAEFastError, OSError, ValueError) as error:
        if debug:
            traceback.print_exc()
        message = str(error) or type(error).__name__
        print(f"{PROGRAM} {name}:{_rank()} error: {message}", file=sys.stderr)
        return error.exit_code if isinstance(error, VideoMAEFastError) else 1
    except KeyboardInterrupt:
        print(f"{PROGRAM} {name}: interrupted", file=sys.stderr)
        return 130
    return 0 if code is None else int(code)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The options of a command, and of the commands that it has itself."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _options(inner)


def _rank() -> str:
    """Which one of several processes this is, where a launcher started them."""
    several = os.environ.get("WORLD_SIZE", "1") != "1" and "RANK" in os.environ
    return f" rank {os.environ['RANK']}:" if several else ""


def _did_you_mean(word: str, known: Sequence[str] | dict[str, Command]) -> str:
    """'; did you mean X?', or the list of what there is where that is short."""
    there = f"; there are {', '.join(known)}" if len(known) <= len(COMMANDS) else ""
    return did_you_mean(word.split("=")[0], known) or there
