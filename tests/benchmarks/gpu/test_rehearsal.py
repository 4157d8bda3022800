"""All that a session on a GPU runs, on the CPU with tiny shapes, from a tree without ``.git``."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from benchmarks.common import commit
from benchmarks.gpu.parts import NAMES, PARTS, TABLE

ROOT = Path(__file__).parents[3]
# Compiling takes minutes on a CPU; the studies and reading videos are rehearsed by their own tests.
COMPILED = {
    "compiled-base", "compiled-giant", "giant-full", "small-batch-8", "small-batch-32",
    "step-small", "step-large", "step-huge",
}  # fmt: skip
STUDIES = {"paper", "drop-in", "data"}
# Another size of a part that is here; what is the same without the sanitizer
ALIKE = {"ops-giant", "memcheck"}
# What an installed development tree finds first would hide what the copy lacks
HIDE = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "Redirecting" not in type(f).__name__]
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of what git would take along, and the commit in its file."""
    if commit.tree_commit(ROOT)["commit_from"] != "git":
        pytest.skip("this tree is no git repository itself")
    target = tmp_path_factory.mktemp("copied") / "tree"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, listed):
        if name.startswith("benchmarks/results/") or not os.path.lexists(ROOT / name):
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    commit.write(ROOT, target / commit.FILE)
    return target


@pytest.fixture(scope="module")
def rehearsed(tree, tmp_path_factory):
    """The record and the folder of all files of a rehearsal."""
    out = tmp_path_factory.mktemp("results")
    hidden = tmp_path_factory.mktemp("hidden")
    (hidden / "sitecustomize.py").write_text(HIDE)
    names = [name for name in NAMES if name not in COMPILED | STUDIES | ALIKE]
    path = os.pathsep.join([str(tree), str(hidden)])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "gpu", "--rehearse", "--out", str(out),
         "--seconds", "3000", "--parts", *names],
        cwd=tree, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # Of processors, whatever else runs there: two minutes on two cores, three on slow ones (200 s
    # by itself on Zen 3 without AVX-512)
    assert took < 2 * 180
    assert sorted(path.name for path in out.iterdir()) == [
        "gpu-first.json", "results.tar.gz", "summary.md",
    ]  # fmt: skip
    with tarfile.open(out / "results.tar.gz") as archive:
        archive.extractall(out / "files", filter="data")
    record = json.loads((out / "gpu-first.json").read_text())
    assert [part["name"] for part in record["parts"]] == names
    return record, out / "files" / "results", done.stdout


pytestmark = pytest.mark.slow


def test_every_part_ran(rehearsed):
    record, _, told = rehearsed
    assert {part["name"]: part["outcome"] for part in record["parts"]} == {
        part["name"]: "passed" for part in record["parts"]
    }
    for name in ("tests-first", "racecheck", "tests", "data-tests"):
        (counts,) = (part["tests"] for part in record["parts"] if part["name"] == name)
        assert counts["passed"] > 0, name
        assert counts["failed"] == 0
    first = {part.name for part in PARTS if part.first}
    assert first - ALIKE <= {part["name"] for part in record["parts"]}
    assert "is faster by" in told  # the table of steps


def test_every_record_names_the_commit_of_the_file(rehearsed, tree):
    record, files, _ = rehearsed
    assert not (tree / ".git").exists()
    expected = commit.git_commit(ROOT)
    assert (record["commit"], record["commit_from"]) == (expected, commit.FILE)
    records = [json.loads(path.read_text()) for path in sorted(files.rglob("*.json"))]
    made = [one for one in records if "commit" in one]
    assert len(made) >= 8
    assert {(one["commit"], one["commit_from"]) for one in made} == {(expected, commit.FILE)}


def test_steps_went_by_the_table_just_measured(rehearsed):
    _, files, _ = rehearsed
    table = json.loads((files / "shared" / TABLE).read_text())["entries"]
    measured = [entry for entry in table if entry["device"] == "cpu"]
    assert len(measured) == 1
    (before,) = files.glob("profile-base/*.json")
    assert json.loads(before.read_text())["attention_table"]["file"] == "attention_table.json"
    for part in ("step-base", "step-giant"):
        (path,) = files.glob(f"{part}/*.json")
        found = json.loads(path.read_text())
        assert found["attention_table"]["file"] == TABLE
        own = [entry for entry in found["attention_table"]["entries"] if entry[0] == "cpu"]
        assert [entry[-1] for entry in own] == [entry["impl"] for entry in measured]
        assert not found["settings"]["interleaved"]


def test_the_profile_has_the_model_beside_each_row(rehearsed):
    _, files, _ = rehearsed
    for part in ("profile-base", "profile-giant"):
        (path,) = files.glob(f"{part}/*.json")
        rows = json.loads(path.read_text())["groups"]
        assert sum(row["measured"] > 0 and row["modelled"] > 0 for row in rows) > 20
