"""Which commit and which card a record names."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from benchmarks.common import card as cards
from benchmarks.common import commit
from benchmarks.common.record import environment


@pytest.fixture
def repository(tmp_path):
    """A repository with a source, a document and a link, and one commit."""
    root = tmp_path / "repository"
    (root / "docs").mkdir(parents=True)
    (root / "code.py").write_text("one = 1\n")
    (root / "other.py").write_text("two = 2\n")
    (root / "docs" / "a.md").write_text("a\n")
    (root / "link").symlink_to("docs")
    (root / ".gitignore").write_text(f"{commit.FILE}\n")
    for words in (
        ["init", "-q"], ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"],
    ):  # fmt: skip
        subprocess.run(["git", *words], cwd=root, check=True)
    return root


@pytest.fixture
def copied(repository, tmp_path):
    """What travels: everything but .git, with the file; within another repository's tree."""
    commit.write(repository)
    shutil.copytree(
        repository, tmp_path / "copy", ignore=shutil.ignore_patterns(".git"), symlinks=True
    )
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path / "copy"


def test_the_commit_is_git_s_where_there_is_git(repository):
    head = commit.git_commit(repository)
    assert len(head) >= 7
    assert commit.tree_commit(repository) == {"commit": head, "commit_from": "git"}
    (repository / "code.py").write_text("one = 2\n")
    assert commit.tree_commit(repository)["commit"] == f"{head}+"


def test_the_commit_comes_with_a_copy_in_a_file(repository, copied):
    head = commit.git_commit(repository)
    assert commit.tree_commit(copied) == {"commit": head, "commit_from": "COMMIT.json"}
    (copied / "docs" / "a.md").write_text("b\n")  # no number depends on it
    assert commit.tree_commit(copied)["commit"] == head


@pytest.mark.parametrize("change", ["edited", "missing"])
def test_a_copy_that_was_changed_is_not_that_commit(change, repository, copied):
    if change == "edited":
        (copied / "code.py").write_text("one = 3\n")
    else:
        (copied / "code.py").unlink()
    found = commit.tree_commit(copied)
    assert found["commit"] == f"{commit.git_commit(repository)}+"
    assert found["commit_from"] == "COMMIT.json; changed since: code.py"


def test_a_copy_without_the_file_says_what_is_missing(copied):
    (copied / commit.FILE).write_text("{")
    assert commit.tree_commit(copied)["commit"] is None
    assert "JSONDecodeError" in commit.tree_commit(copied)["commit_from"]
    (copied / commit.FILE).unlink()
    found = commit.tree_commit(copied)
    assert found["commit"] is None
    assert "make gpu-commit" in found["commit_from"]
    with pytest.raises(RuntimeError, match="no git repository"):
        commit.write(copied)


def test_a_changed_tree_s_file_says_so(repository):
    (repository / "code.py").write_text("one = 2\n")
    told = json.loads(commit.write(repository).read_text())
    assert told["commit"].endswith("+")
    assert sorted(told["files"]) == [".gitignore", "code.py", "other.py"]


SAID = "NVIDIA H200, 143771, 580.159.04, 345, 3201, 1980, 3201, 76.31, 700.00, 27"


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """A function that makes an nvidia-smi of a line of output."""

    def make(line: str) -> None:
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!{sys.executable}\nprint({line!r})\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return make


def test_a_card_as_found(smi):
    smi(SAID)
    found = cards.card()
    assert found["name"] == "NVIDIA H200"
    assert (found["sm_MHz"], found["max_sm_MHz"], found["power_limit_W"]) == (345, 1980, 700)
    assert cards.clocks() == {
        "sm_MHz": 345, "memory_MHz": 3201, "power_W": 76.31, "temperature_C": 27,
    }  # fmt: skip
    smi(SAID.replace("76.31", "[N/A]").replace("143771", "[N/A]"))
    assert cards.card()["power_W"] == "[N/A]"
    assert cards.giant_batch(cards.card()) == 16
    smi("No devices were found")
    assert "No devices" in cards.card()["unknown"]


def test_no_card(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "FileNotFoundError" in cards.card()["unknown"]
    assert list(cards.clocks()) == ["unknown"]


def test_vit_g_fits_the_memory_found(smi):
    for line, few, many in ((SAID, 32, 128), (SAID.replace("143771", "81559"), 16, 64)):
        smi(line)
        found = cards.card()
        assert (cards.giant_batch(found), cards.giant_batch(found, full=True)) == (few, many)
    assert cards.giant_batch({"unknown": "no nvidia-smi"}) == 16


def test_a_record_names_what_it_was_made_with():
    record = environment("cpu", ["a", "/some/place/b"])
    assert record["commit_from"]
    assert record["machine"]["card"] is None
    assert record["command"] == "a ../b"
    assert record["attention_table"]["file"] == "attention_table.json"
    for name in ("torch", "triton", "flash-attn-4", "av", "nvidia-dali-cuda130"):
        assert name in record["versions"]
