"""An official script twice, as it is and with the two lines, and what differs."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.checkouts.child import Job, Result
from benchmarks.checkouts.rows import Row

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-5  # of losses and features, relative
WEIGHTS = 1e-5  # of all weights after some steps, which change them by some percent
SECONDS = 1800.0


class ScriptError(Exception):
    """A script ended with an error; holds the end of what it wrote."""


def run(job: Job, folder: Path) -> Result:
    """Runs a job in a child process, in a folder that is emptied: the scripts go on from files.

    Raises:
        ScriptError: the script did not end well, or not in half an hour.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    asked, answered = folder / "job.json", folder / "result.json"
    asked.write_text(json.dumps(asdict(job)), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.checkouts.child", str(asked), str(answered)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with (folder / "output.txt").open("w", encoding="utf-8") as output:
        try:
            code = subprocess.run(
                command, stdout=output, stderr=subprocess.STDOUT, timeout=SECONDS,
                env={**os.environ, "PYTHONPATH": path}, check=False,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            code = -1
    if code != 0 or not answered.exists():
        text = (folder / "output.txt").read_text(encoding="utf-8", errors="replace")
        raise ScriptError(f"exit status {code}: {' '.join(text.splitlines()[-3:])[-400:]}")
    return Result(**json.loads(answered.read_text(encoding="utf-8")))


Compare = Callable[[Path, Path], dict[str, float]]


def pair(name: str, make: Callable[[Path], Job], folder: Path, compare: Compare) -> Row:
    """Runs a job as it is and accelerated.

    Args:
        make: the job that writes into a folder.
        compare: what two runs left in their folders, as differences.
    """
    original, ours = folder / "as-it-is", folder / "two-lines"
    try:
        expected = run(replace(make(original), accelerated=False), original)
    except ScriptError as error:
        return Row(name, "FAILED", f"as it is, without the two lines: {error}")
    try:
        found = run(replace(make(ours), accelerated=True), ours)
    except ScriptError as error:
        return Row(name, "FAILED", str(error))
    if found.refused is not None:
        return Row(name, "refused", found.refused)
    if not found.report:
        return Row(name, "FAILED", "the two lines were not run")
    if len(expected.losses) != len(found.losses):
        told = f"{len(expected.losses)} losses as it is, {len(found.losses)} accelerated"
        return Row(name, "FAILED", told)
    numbers: dict[str, Any] = {}
    if expected.losses:
        apart = relative(expected.losses, found.losses)
        numbers = {"losses": len(found.losses), "last loss": found.losses[-1], "apart by": apart}
    try:
        differences = compare(original, ours)
    except (KeyError, ValueError, OSError) as error:
        return Row(name, "FAILED", f"{type(error).__name__}: {error}", numbers)
    numbers.update(differences)
    bounds = {"apart by": TOLERANCE, "weights": WEIGHTS, "averaged weights": WEIGHTS}
    far = [key for key in numbers if not numbers[key] <= bounds.get(key, TOLERANCE)
           and key not in ("losses", "last loss", "files")]  # fmt: skip
    return Row(
        name, "FAILED" if far else "equal", f"too far: {', '.join(far)}" * bool(far), numbers
    )


def relative(expected: Iterable[float], found: Iterable[float]) -> float:
    """The largest relative difference; infinite where one is no number."""
    pairs = zip(expected, found, strict=True)
    apart = [abs(one - other) / max(abs(one), 1e-30) for one, other in pairs]
    return max(value if math.isfinite(value) else math.inf for value in apart)


def checkpoints(original: Path, ours: Path) -> dict[str, float]:
    """The last checkpoints of two runs: the same keys, and how far apart their weights are.

    Raises:
        ValueError: other keys or dtypes.
    """
    one, other = (_last(folder) for folder in (original, ours))
    found = {"weights": _apart(one["model"], other["model"])}
    if "model_ema" in one:
        found["averaged weights"] = _apart(one["model_ema"], other["model_ema"])
    return found


def _last(folder: Path) -> dict[str, Any]:
    paths = sorted(folder.glob("checkpoint-*.pth"), key=lambda path: path.stat().st_mtime)
    if not paths:
        raise ValueError(f"no checkpoint in {folder.name}")
    found: dict[str, Any] = torch.load(paths[-1], map_location="cpu", weights_only=False)
    return found


def _apart(expected: dict[str, Tensor], found: dict[str, Tensor]) -> float:
    if list(expected) != list(found):
        raise ValueError(f"other keys: {sorted(set(expected) ^ set(found))[:4]}")
    kinds = [name for name, value in expected.items() if value.dtype != found[name].dtype]
    if kinds:
        raise ValueError(f"other dtypes: {kinds[:4]}")
    apart = sum(float((found[n] - v).double().square().sum()) for n, v in expected.items())
    size = sum(float(v.double().square().sum()) for v in expected.values())
    return float((apart / max(size, 1e-60)) ** 0.5)


def features(original: Path, ours: Path) -> dict[str, float]:
    """Features that two runs wrote into files: how many files, and how far apart.

    Raises:
        ValueError: no files, or other files.
    """
    names = sorted(path.name for path in (original / "features").glob("*.npy"))
    if not names or names != sorted(path.name for path in (ours / "features").glob("*.npy")):
        raise ValueError("other files")
    worst = 0.0
    for name in names:
        one, other = (np.load(folder / "features" / name) for folder in (original, ours))
        worst = max(worst, float(np.linalg.norm(one - other) / np.linalg.norm(one)))
    return {"files": len(names), "features apart by": worst}
