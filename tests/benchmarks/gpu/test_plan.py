"""The plan of a GPU session in benchmarks/README.md: its commands are commands, its parts parts."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from benchmarks.gpu import kernel_profile
from benchmarks.gpu.parts import NAMES, PARTS
from benchmarks.gpu.wheels import PART, SETS
from benchmarks.ops import attention_choice
from benchmarks.studies import drop_in
from benchmarks.studies.study import study_arguments

ROOT = Path(__file__).parents[3]
README = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
PLAN = README.partition("## A GPU session of 30 minutes")[2].partition("\n## ")[0]
COMMANDS = [
    command.partition("#")[0].strip()
    for block in re.findall(r"```\n(.*?)```", PLAN, re.DOTALL)
    for line in block.splitlines()
    for command in line.split("&&")
]


def test_the_plan_is_there():
    assert len(COMMANDS) >= 9
    assert all(command.startswith("make gpu-") for command in COMMANDS), COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one(command):
    """make says what it would run; parts and sets of wheels by name."""
    done = subprocess.run(
        [*shlex.split(command), "-n"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    settings = dict(word.split("=", 1) for word in shlex.split(command) if "=" in word)
    assert set(settings) <= {"GPU_OUT", "GPU_PARTS", "WHEELS"}
    assert set(settings.get("GPU_PARTS", "").split()) <= set(NAMES)
    assert set(settings.get("WHEELS", "").split()) <= set(SETS)
    ran = done.stdout
    assert re.search(r"-m benchmarks (gpu|commit|wheels)\b", ran)
    for name in (settings.get("GPU_PARTS", "") + " " + settings.get("WHEELS", "")).split():
        assert f" {name}" in ran


def test_tables_name_parts():
    """Those of the first command as they come, and every other part somewhere."""
    rows = [line.split("|")[1] for line in PLAN.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`([\w-]+)`", row)]
    first = [part.name for part in PARTS if part.first]
    assert named[: len(first)] == first
    assert set(named) <= set(NAMES)
    assert set(re.findall(r"[\w-]+", PLAN)) >= set(NAMES)


def test_sizes_of_wheels_are_those_of_the_code():
    assert f"at most {PART // 2**20} MiB each" in PLAN


def test_python_commands_of_the_readme_parse():
    """Of the modules that the plan and the list of commands use first on a GPU."""
    parsers = {
        "attention-choice": attention_choice.arguments(),
        "kernel-profile": kernel_profile.arguments(),
    }
    lines = re.findall(r"python -m benchmarks ([\w-]+)([^`\n#]*)", README)
    tried = 0
    for module, words in lines:
        if module in parsers:
            parsers[module].parse_args(shlex.split(words))
            tried += 1
    assert tried >= 5
    (words,) = (w for module, w in lines if module == "drop-in" and "--device cuda" in w)
    assert drop_in.SECONDS
    assert study_arguments("drop-in", "").parse_known_args(shlex.split(words))[0].device
