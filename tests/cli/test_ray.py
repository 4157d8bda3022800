"""Shards as Ray's tasks on two CPUs: the files of one machine, whatever is killed."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.random_weights import classifier
from tests.support.videos import write_video
from videomae_fast.cli import main
from videomae_fast.data import executors
from videomae_fast.data.executors import RayExecutor, Result
from videomae_fast.data.prepare import PrepareSettings
from videomae_fast.data.prepare.executed import prepare_shards
from videomae_fast.data.prepare.work import Work
from videomae_fast.data.shards import Shard
from videomae_fast.errors import BackendUnavailableError, UsageError, VideoMAEFastError

LINES = ("a/1.mp4", "1.mp4", "bad.mp4", "A/1.mp4", "a/1.avi", "1.mp4", "gone.mp4")
FAST = PrepareSettings(short_side=64, preset="ultrafast")
FEATURES = ["--stride", "4", "--device", "cpu", "--heads", "2"]
FEATURES += ["--frames", "4", "--image-size", "32"]


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A cluster of two CPUs."""
    package = pytest.importorskip("ray", reason="Ray is not installed (pip install ray)")
    folder = tempfile.mkdtemp(prefix="ray-")  # its sockets' names have to be short
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_AUTH_MODE", "disabled")
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patched.setenv("OMP_NUM_THREADS", "1")
        # Of 15, as Ray has it: beside other test processes its own would hardly get a turn
        patched.setenv("RAY_worker_niceness", "0")
        package.init(
            num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20, _temp_dir=folder
        )
        yield package
        package.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list with names that collide, a line twice, what is missing or no video; and weights."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("a/1.mp4", "1.mp4", "A/1.mp4"):
        (folder / name).parent.mkdir(exist_ok=True)
        write_video(folder / name, 12)
    write_video(folder / "a/1.avi", 9, codec="mpeg4", options={"g": "6"})
    (folder / "bad.mp4").write_bytes(b"no video")
    (folder / "train.csv").write_text("".join(f"{line} 0 -1\n" for line in LINES))
    torch.save({"module": classifier()}, folder / "weights.pth")
    return folder


@pytest.fixture
def here(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    """The files that a command leaves, without what says when it ran or what it had done."""
    own = ("prepare.jsonl", ".report.json")
    return {
        str(path.relative_to(folder)): path.read_bytes().replace(b"/by-ray/", b"/local/")
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(own)
    }


def kill_first(monkeypatch: pytest.MonkeyPatch, file: Path, above: int, log: Path) -> None:
    """Has the process of a first shard killed once a file has more bytes, and no other one.

    log: takes a line for each beginning of that shard.
    """
    run, seen = RayExecutor.run, file.absolute()

    def kill() -> None:
        while not (seen.exists() and seen.stat().st_size > above):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)

    def killed(function: Callable[[Shard], Result], shard: Shard) -> Result:
        if shard[0] == 1:
            with log.open("a") as lines:
                lines.write(f"{os.getpid()}\n")
            if len(log.read_text().split()) == 1:
                threading.Thread(target=kill, daemon=True).start()
        return function(shard)

    monkeypatch.setattr(
        RayExecutor,
        "run",
        lambda self, function, count: run(self, partial(killed, function), count),
    )


def test_the_files_are_those_of_one_machine_though_a_worker_is_killed(
    ray: Any, here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Killed once: a process takes as long to begin as all that these commands do."""
    spread = ("--executor", "ray", "--shards", "2")
    prepare = ("prepare", "train.csv", "--workers", "1", "--speed-files", "0",
               "--preset", "ultrafast", "--output")  # fmt: skip
    assert main([*prepare, "local"]) == 0
    header = Path("local/prepare.jsonl").read_bytes().index(b"\n") + 1
    begun = here / "begun"
    with monkeypatch.context() as patched:
        kill_first(patched, Path("by-ray/shards/1-of-2/prepare.jsonl"), header, begun)
        assert main([*prepare, "by-ray", *spread]) == 0
    assert len(set(begun.read_text().split())) == 2, "by two processes"
    assert "7 lines in 2 shards" in capfd.readouterr().err
    shutil.rmtree("by-ray/shards")
    assert contents(Path("by-ray")) == contents(Path("local"))
    assert len(contents(Path("local"))) == 6
    assert main([*prepare, "by-ray", *spread]) == 0, "nothing is left"

    probe = ("probe", "train.csv", "--workers", "1", "--output")
    assert main([*probe, "local.jsonl", "--good-list", "local.csv"]) == 0
    assert main([*probe, "ray.jsonl", "--good-list", "ray.csv", *spread]) == 0
    printed = capfd.readouterr().out.split("manifest")
    assert printed[0].rpartition("lines  ")[2] == printed[1].rpartition("lines  ")[2]
    for ending in ("jsonl", "csv"):
        assert Path(f"ray.{ending}").read_bytes() == Path(f"local.{ending}").read_bytes()
    assert not Path("ray.jsonl.shards").exists()

    features = ("features", "weights.pth", "train.csv")
    assert main([*features, "local/features", *FEATURES]) == 0
    assert main([*features, "by-ray/features", *FEATURES, *spread]) == 0
    assert contents(Path("by-ray/features")) == contents(Path("local/features"))
    assert len(contents(Path("local/features"))) == 11


def test_what_goes_wrong_in_a_shard(ray: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no machine of the Ray cluster has 64 CPUs for a shard"):
        RayExecutor(cpus=64).run(lambda shard: shard, 2)
    with pytest.raises(UsageError, match="has 1 CPUs and 1 GPUs for a shard"):
        RayExecutor(gpus=1.0).run(lambda shard: shard, 2)
    assert RayExecutor().shards() == 8
    work = Work()
    prepare_shards("train.csv", "out", FAST, work, RayExecutor(), 3)
    with pytest.raises(UsageError, match="was begun in 3 shards: give --shards 3"):
        prepare_shards("train.csv", "out", FAST, work, RayExecutor(), 2)
    with pytest.raises(UsageError, match="made with other settings"):  # as the shard said it
        prepare_shards("train.csv", "out", PrepareSettings(), work, RayExecutor())
    monkeypatch.setattr(executors, "RETRIES", 0)
    with pytest.raises(VideoMAEFastError, match=r"shard 1 of 1 was lost 1 times .*is kept"):
        RayExecutor().run(lambda _: os.kill(os.getpid(), signal.SIGKILL), 1)


def test_after_an_error_no_more_shards_are_begun(ray: Any, here: Path) -> None:
    """Again and again: where tasks were cancelled as they ended, Ray aborted the process."""
    begun = here / "begun"

    def fails(shard: Shard) -> None:
        with begun.open("a") as lines:
            lines.write(f"{shard[0]}\n")
        raise UsageError("no")

    rounds = 50
    for _ in range(rounds):
        with pytest.raises(UsageError, match="no"):
            RayExecutor().run(fails, 1000)
    assert len(begun.read_text().split()) <= rounds * executors.AT_ONCE * 2  # CPUs


def test_a_finished_list_that_has_grown(here: Path) -> None:
    """Its shards' journals don't know what the whole's does."""
    (here / "train.csv").write_text("1.mp4 0 -1\n")
    assert main(["prepare", "train.csv", "--output", "out", "--workers", "1", "--speed-files",
                 "0", "--short-side", "64", "--preset", "ultrafast"]) == 0  # fmt: skip
    prepare_shards("train.csv", "out", FAST, Work(), RayExecutor())
    (here / "train.csv").write_text("1.mp4 0 -1\na/1.mp4 0 -1\n")
    with pytest.raises(UsageError, match=r"1 files of train.csv are to be made: go on without"):
        prepare_shards("train.csv", "out", FAST, Work(), RayExecutor())


def test_shards_that_do_not_belong_together(here: Path) -> None:
    for name in ("1-of-2", "1-of-3"):
        (here / "out/shards" / name).mkdir(parents=True)
        (here / "out/shards" / name / "prepare.jsonl").touch()
    with pytest.raises(UsageError, match="has parts of 2 and of 3: they don't belong together"):
        prepare_shards("train.csv", "out", FAST, Work(), RayExecutor())


def test_without_ray(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(executors, "find_spec", lambda _: None)
    for words in (
        ["prepare", "train.csv", "--output", "out"],
        ["probe", "train.csv", "--output", "out.jsonl"],
        ["features", "weights.pth", "train.csv", "out"],
    ):
        assert main([*words, "--executor", "ray"]) == 1
        assert "Ray is not installed: pip install ray" in capsys.readouterr().err
        for more, message in (
            (["--shards", "2"], "--shards goes with --executor ray"),
            (["--executor", "ray", "--shard", "1/2"], "--shard is one part, and --executor ray"),
            (["--executor", "ray", "--shards", "0"], "--shards must be 1 or more, not 0"),
        ):
            assert main([*words, *more]) == 2
            assert message in capsys.readouterr().err
    with pytest.raises(BackendUnavailableError, match="pip install ray"):
        RayExecutor().shards()
    with pytest.raises(UsageError, match=r"gone: can't be entered on .*all machines of the Ray"):
        executors._in_folder(lambda shard: shard, str(here / "gone"), (1, 1))
