"""What every command has: its parser, the options that many share, and where its results go."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.record import RESULTS
from videomae_fast.models.config import SIZES

SHARED: dict[str, dict[str, Any]] = {
    "device": {"help": "cpu or cuda"},
    "size": {"choices": SIZES, "help": "of the model"},
    "batch": {"type": int, "help": "clips"},
    "threads": {"type": int, "help": "of the CPU"},
    "repeats": {"type": int, "help": "times that are taken of each"},
    "warmup": {"type": int, "help": "runs of each before these"},
    "seconds": {"type": float, "help": "that all of it should take"},
    "seed": {"type": int, "help": "of weights, frames and masks"},
}


def parser_of(
    command: str, doc: str | None, *, tiny: bool = False, out: bool = True, **defaults: Any
) -> argparse.ArgumentParser:
    """A command's parser.

    Args:
        command: its name.
        doc: its module's docstring, which --help shows.
        tiny: whether it has --tiny.
        out: whether it has --out.
        **defaults: of those of :data:`SHARED` that it has.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {command}", description=doc)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    for name, default in defaults.items():
        told = f"{SHARED[name]['help']}; default: %(default)s"
        parser.add_argument(f"--{name}", **{**SHARED[name], "help": told, "default": default})
    if tiny:
        parser.add_argument("--tiny", action="store_true", help="tiny shapes, to test this script")
    if out:
        told = "folder of the results; default: $OUT or benchmarks/results"
        parser.add_argument("--out", type=Path, help=told)
    return parser


def command_of(name: str, words: Sequence[str]) -> list[str]:
    """The words that make a record again."""
    return ["python", "-m", "benchmarks", name, *words]


def results_folder(args: argparse.Namespace) -> Path:
    """--out, or $OUT, or benchmarks/results."""
    return args.out or Path(os.environ.get("OUT") or RESULTS)


def named_folder(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Path:
    """--out or $OUT; ends the program where neither is given: what is rehearsed is no result."""
    if args.out is None and not os.environ.get("OUT"):
        parser.error("where should the results go? give --out FOLDER, or set $OUT")
    return results_folder(args)


def device_of(
    parser: argparse.ArgumentParser, name: str, instead: str = "--device cpu"
) -> torch.device:
    """The device of this name; ends the program where it is a GPU, and there is none.

    Args:
        instead: what to do without one.
    """
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error(f"no GPU here; {instead}")
    return device
