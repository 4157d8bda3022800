"""Hugging Face's own tests of VideoMAE, with every model accelerated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.checkouts.pairs import ROOT, SECONDS, ScriptError
from benchmarks.checkouts.rows import Row

TESTS = "tests/models/videomae/test_modeling_videomae.py"


def row(checkout: Path, folder: Path, *, dropout: bool) -> Row:
    """The tests as they are, and with every model accelerated.

    Args:
        dropout: with the dropout that the tests ship with, which is 0.1; otherwise it is 0.
    """
    kind = "dropout as shipped" if dropout else "dropout 0"
    name = f"Hugging Face's tests, every model accelerated, {kind}"
    if not (checkout / TESTS).is_file():
        return Row(name, "not run", f"{checkout.name} has no {TESTS}")
    words = [] if dropout else ["dropout-0"]
    try:
        expected = run(words, checkout, folder)
    except ScriptError as error:
        return Row(name, "FAILED", f"as they are: {error}")
    try:
        found = run([*words, "accelerated"], checkout, folder)
    except ScriptError as error:
        return Row(name, "FAILED", str(error))
    before, after = expected["tests"], found["tests"]
    passed = [test for test, outcome in before.items() if outcome == "passed"]
    worse = [test for test in passed if after.get(test) != "passed"]
    count = Counter(after.values())
    numbers = {**found["models"], **count, "passed as it is": len(passed)}
    if worse:
        return Row(name, "FAILED", f"no longer pass: {', '.join(worse)}", numbers)
    if not found["models"].get("accelerated"):
        sentences = found["refused"] or ["no model was made"]
        return Row(name, "refused" if found["refused"] else "FAILED", sentences[0], numbers)
    return Row(name, "equal", "the same tests pass", numbers)


def run(words: list[str], checkout: Path, folder: Path) -> dict[str, Any]:
    """Runs the tests in a process of their own.

    Args:
        words: for :mod:`benchmarks.checkouts.hugging_face_plugin`.

    Raises:
        ScriptError: pytest could not run them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    way = "-".join(words) or "as-it-is"
    result, log = folder / f"{way}.json", folder / f"{way}.txt"
    result.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.checkouts.hugging_face_plugin",
        "-p", "no:cacheprovider", "-W", "ignore", "-c", os.devnull, "--rootdir", str(checkout),
        TESTS,
    ]  # fmt: skip
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(paths),
        "VIDEOMAE_FAST_PLUGIN": " ".join(words), "VIDEOMAE_FAST_RESULT": str(result),
    }  # fmt: skip
    with log.open("w", encoding="utf-8") as output:
        try:
            subprocess.run(
                command, cwd=checkout, env=environment, stdout=output, stderr=subprocess.STDOUT,
                timeout=SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ScriptError(f"the tests took more than {SECONDS:.0f} s") from None
    tail = " ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:])[-400:]
    if not result.exists():
        raise ScriptError(f"pytest did not end: {tail}")
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    if not found["tests"]:
        raise ScriptError(f"no test was run: {tail}")
    return found
