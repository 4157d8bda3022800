"""Examples of launching on clusters: shell that parses, commands whose every option is taken."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import textwrap
from importlib import import_module
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from videomae_fast.cli.program import build_parser
from videomae_fast.recipes.catalogue import find

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


def slurm() -> str:
    return (EXAMPLES / "slurm.sh").read_text()


def skypilot() -> str:
    """The commands of its last section."""
    _, _, run = (EXAMPLES / "skypilot.yaml").read_text().partition("\nrun: |\n")
    return textwrap.dedent(run)


SCRIPTS = {"slurm": slurm, "skypilot": skypilot}
ENVIRONMENT = {
    "RECIPE": "vit_g_hybrid", "DATA": "train.csv", "OUTPUT": "runs/it", "DRY_RUN": "1",
    "SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2",
    "SLURM_GPUS_ON_NODE": "8", "SKYPILOT_NODE_IPS": "node1\nnode2", "SKYPILOT_NUM_NODES": "2",
    "SKYPILOT_NUM_GPUS_PER_NODE": "8",
}  # fmt: skip


def dry_run(script: str, folder: Path) -> list[str]:
    stand_in = folder / "scontrol"
    stand_in.write_text('#!/bin/sh\n[ "$1 $2 $3" = "show hostnames node[1-2]" ] && echo node1\n')
    stand_in.chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, **ENVIRONMENT, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return shlex.split(done.stdout)


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_is_shell(name: str) -> None:
    subprocess.run(["bash", "-n"], input=SCRIPTS[name](), text=True, check=True)


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_it_would_start_is_a_command(name: str, tmp_path: Path) -> None:
    words = dry_run(SCRIPTS[name](), tmp_path)
    assert words[0] == "torchrun"
    launch = get_args_parser().parse_args(words[1:])
    assert (launch.nnodes, launch.nproc_per_node) == ("2", "8")
    assert launch.rdzv_endpoint == {"slurm": "node1:29517", "skypilot": "node1:29500"}[name]
    assert (launch.max_restarts, launch.rdzv_backend, launch.module) == (3, "c10d", True)
    assert launch.training_script == "videomae_fast"
    verb, *options = launch.training_script_args
    parser = build_parser()[1][verb]
    import_module(f"videomae_fast.cli.{verb}").add_arguments(parser)
    args = parser.parse_args(options)
    assert vars(args)["run.shard"] == "node"
    assert find(verb, args.recipe).is_file()


def test_numbers_are_followed(tmp_path: Path) -> None:
    """By a stand-in for wandb, which prints what it gets."""
    (tmp_path / "wandb.py").write_text(
        "class Run:\n"
        "    def log(self, numbers, step): print('log', step, numbers['loss'])\n"
        "def init(**given):\n"
        "    print(given['id'], given['config'])\n"
        "    return Run()\n"
    )
    output = tmp_path / "run"
    output.mkdir()
    (output / "config.json").write_text('{"format": 2}')
    lines = [json.dumps({"step": step, "loss": 0.5 * step}) for step in range(3)]
    (output / "metrics.jsonl").write_text("\n".join([*lines[:2], lines[2][:9]]))
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "follow_metrics.py"), str(output), "--once"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["run {'format': 2}", "log 0 0.0", "log 1 0.5"]
