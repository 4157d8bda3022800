"""Runs that read a store in an object store: those of the list, whatever the network does."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.labelled import tiny_config, write_set
from tests.support.launches import LIMIT, Host, Run
from tests.support.object_store import BUCKET, KINDS, RANK, Proxy, proxy_before, rank_words, upload
from tests.support.runs import TINY, altered, losses, options, quiet
from tests.support.stores import write_store
from videomae_fast import cli
from videomae_fast.data import PipelineStats, Source, read_report
from videomae_fast.data.errors import StoreUnreachableError
from videomae_fast.data.store import lance as seam
from videomae_fast.data.store import opening, remote
from videomae_fast.data.store.base import StoredClipError, StoreError
from videomae_fast.data.store.opening import open_store
from videomae_fast.data.store.verifying import Rows, wrong_rows
from videomae_fast.errors import UsageError
from videomae_fast.recipes import PretrainConfig
from videomae_fast.recipes.source import remote_url
from videomae_fast.tasks.classification import finetune
from videomae_fast.tasks.engine import LAST_REQUEST, micro_batches
from videomae_fast.tasks.labelled import training_clips
from videomae_fast.tasks.pretraining import dataset_of, pretrain
from videomae_fast.training.errors import InterruptedRunError
from videomae_fast.training.metrics import read_metrics
from videomae_fast.training.parallel.world import World
from videomae_fast.training.step import TrainStep

pytest.importorskip("obstore")
Tiny = Callable[..., PretrainConfig]


@pytest.fixture(scope="module")
def expected(tiny_list: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    output = tmp_path_factory.mktemp("list")
    pretrain(altered(PretrainConfig(), data=(Source(tiny_list),), **TINY), output=output, log=quiet)
    return list(losses(output))


def test_a_url_is_one_although_it_is_a_path() -> None:
    assert remote_url(Path("s3://bucket/a/b")) == remote_url("s3://bucket/a/b") == "s3://bucket/a/b"
    for local in ("clips", "/s3/x", "s3", "./s3:/x", "c:/x"):
        assert remote_url(local) is None


@KINDS
def test_rows_are_those_of_the_store(url: str, store: Path, proxy: Proxy, tmp_path: Path) -> None:
    """One request a clip, of its very bytes; the index is fetched once to this machine."""
    remote, local = open_store(url), open_store(store)
    assert len(remote) == len(local) == 8
    assert remote.version == local.version
    assert remote.labels.tolist() == local.labels.tolist()
    assert remote.digest() == local.digest()
    assert remote.identity() == local.identity()
    assert remote.containing(b"p3.").tolist() == local.containing(b"p3.").tolist()
    proxy.counts.clear()
    for row in range(8):
        assert remote.row(row) == local.row(row)
        assert remote.read(row) == local.read(row)
    assert proxy.counts["requests"] == 8
    assert proxy.counts["bytes"] == sum(local.row(row).size for row in range(8))
    kept = list((tmp_path / "cache").rglob("*.npy"))
    times = [path.stat().st_mtime_ns for path in kept]
    proxy.counts.clear()
    open_store(url)
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert not proxy.counts["requests"]
    with pytest.raises(StoreError, match=r"has no version 3|can't be opened at version 3"):
        open_store(url, 3)


def test_an_index_comes_in_parts(
    url: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one of ten million rows would not come within the time of a request."""
    monkeypatch.setattr(remote, "PART", 100)
    opened = open_store(url)
    assert [opened.row(row) for row in range(8)] == [open_store(store).row(n) for n in range(8)]
    files = sorted((tmp_path / "cache").rglob("*"))
    assert sum(path.is_file() for path in files) == 3
    assert {path.suffix for path in files if path.is_file()} == {".npy"}


def test_several_processes_read_one_store(
    host: Host, url: str, proxy: Proxy, server: str, tiny_list: Path, tmp_path: Path
) -> None:
    """Each clip once in an epoch. Whether one process loses the store or all: they save, end, and
    go on, on another number of processes too."""
    longer = {"epochs": 8}
    steps = 2 * longer["epochs"]
    config = altered(PretrainConfig(), data=(Source(tiny_list),), **{**TINY, **longer})
    pretrain(config, output=tmp_path / "list", log=quiet)
    words = ["pretrain", *options(data=url, workers=1, store_timeout=1, prefetch_gb=1e-6,
             log_every=1, **longer), "--output", str(tmp_path / "run")]  # fmt: skip

    def lost(run: Run, step: int, lose: Proxy) -> int:
        """Loses it in a step; how many are done. Answers take a while: else all may have come."""
        deadline = time.monotonic() + LIMIT
        lose.delay = 0.1
        while f"step {step}/{steps}" not in run.said():
            assert run.poll() is None, run.said()
            assert time.monotonic() < deadline, run.said()
            time.sleep(0.02)
        lose.down = True
        said = run.finish(1)
        assert "can't be reached" in said
        assert "steps are done; saved in" in said
        lose.down, lose.delay = False, 0.0
        return len(losses(tmp_path / "run"))

    cache = tmp_path / "cache"
    with proxy_before(server) as alone:
        ranks = rank_words(words, [proxy.address, alone.address], cache)
        done = lost(host.start(2, RANK, ranks, tmp_path / "one"), 2, alone)
    assert 2 <= done < steps
    ranks = rank_words(words, [proxy.address], cache)
    more = lost(host.start(3, RANK, ranks, tmp_path / "all"), done + 1, proxy)
    assert done < more < steps
    before = proxy.counts["requests"]
    host.start(3, RANK, ranks, tmp_path / "rest").finish()
    expected = losses(tmp_path / "list")
    assert losses(tmp_path / "run") == [pytest.approx(line, rel=1e-4) for line in expected]
    assert proxy.counts["requests"] - before == 4 * (steps - more), "a request for each video"


def test_the_others_wait_as_long_as_a_store_is_waited_for(tiny: Tiny, url: str) -> None:
    config = tiny(data=(Source(url),), store_timeout=300.0, group_timeout=359.0)
    given = dataset_of(config), config, range(1)
    cpu = torch.device("cpu")
    with pytest.raises(UsageError, match=r"store_timeout \(300 s\) for s3://.*--group-timeout"):
        micro_batches(*given, World(0, 2, cpu), PipelineStats(0))
    micro_batches(*given, World(0, 1, cpu), PipelineStats(0))
    default = PretrainConfig()
    assert default.data.store_timeout + LAST_REQUEST <= default.run.group_timeout


@KINDS
def test_the_same_losses_through_a_bad_network(
    tiny: Tiny, url: str, proxy: Proxy, expected: list[object], tmp_path: Path
) -> None:
    """Answers come 50 ms late, some are errors, some are cut: no clip is lost."""
    proxy.delay, proxy.fail_every, proxy.cut_every = 0.05, 9, 7
    config = tiny(data=(Source(url),), workers=1)
    pretrain(config, output=tmp_path / "run", log=quiet)
    assert losses(tmp_path / "run") == expected
    assert proxy.counts["failed"] > 0
    assert proxy.counts["cut"] > 0
    assert not (tmp_path / "run" / "bad_files.rank0.jsonl").read_text()
    clips = 4 * 8  # epochs and videos
    assert proxy.counts["requests"] - proxy.counts["failed"] - proxy.counts["cut"] <= 2 * clips


def test_the_same_losses_in_this_process_and_mixed_with_a_list(
    tiny: Tiny, url: str, tiny_list: Path, expected: list[object], tmp_path: Path
) -> None:
    pretrain(tiny(data=(Source(url),)), output=tmp_path / "here", log=quiet)
    assert losses(tmp_path / "here") == expected
    found = []
    for name, second in (("list", tiny_list), ("remote", url)):
        lists = (Source(tiny_list, weight=1.0), Source(second, weight=2.0, stride=1))
        config = tiny(data=lists, workers=0 if name == "list" else 1)
        pretrain(config, output=tmp_path / name, log=quiet)
        found.append(losses(tmp_path / name))
    assert found[0] == found[1]


def test_labels_of_lists_and_remote_stores_are_mixed(
    proxy: Proxy, server: str, tmp_path: Path
) -> None:
    """Each source with its own classes, weight and stride; what is validated is remote too."""
    pytest.importorskip("lance")
    train, validation = write_set(tmp_path, 2, 1)
    lines = train.read_text().splitlines(keepends=True)
    lists = [tmp_path / f"{number}.csv" for number in range(3)]
    for number, path in enumerate(lists):  # classes 0 and 1, 1 and 2, 2 and 3
        path.write_text("".join(line for line in lines if int(line[-2]) - number in (0, 1)))

    def remote(path: Path, kind: str) -> Path:
        ending = ".lance" if kind == "lance" else ""
        made = write_store(tmp_path / f"{path.stem}-s{ending}", path, format="labels", kind=kind)
        return Path(upload(server, made, f"{tmp_path.name}-{path.stem}"))

    found = []
    for name, (second, third, validated) in {
        "lists": (lists[1], lists[2], validation),
        "mixed": (remote(lists[1], "tar"), remote(lists[2], "lance"), remote(validation, "tar")),
    }.items():
        given = {"format": "labels"} if name == "lists" else {}
        sources = (
            Source(lists[0], weight=1.0, stride=1, format="labels"),
            Source(second, weight=2.0, stride=2, **given),  # type: ignore[arg-type]
            Source(third, weight=0.5, **given),  # type: ignore[arg-type]
        )
        config = tiny_config(lists[0], validated, data__lists=sources, schedule__epochs=1,
                             schedule__warmup_epochs=0)  # fmt: skip
        data = training_clips(config)
        draws = [draw for step in range(6) for draw in data.order.draws(step, 8, 0, 8)]
        labels = [data.request(draw).label for draw in draws]
        strides = [data.request(draw).stride for draw in draws]
        finetune(config, output=tmp_path / name, log=quiet)
        told = (tmp_path / name / "validation.jsonl").read_text()
        found.append((labels, strides, losses(tmp_path / name), told))
    assert found[0] == found[1]
    assert set(found[0][0]) == {0, 1, 2, 3}
    assert set(found[0][1]) == {1, 2, 4}


def test_a_slow_network_is_not_waited_for(
    tiny: Tiny, url: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers come 150 ms late, one in nine is an error: what is fetched ahead hides it."""
    update = TrainStep.update

    def slow(self: TrainStep[Any], rate: float) -> torch.Tensor:
        time.sleep(0.4)  # in the place of a step of a large model
        return update(self, rate)

    monkeypatch.setattr(TrainStep, "update", slow)
    proxy.delay, proxy.fail_every = 0.15, 9
    shares = []
    for name, ahead in (("ahead", 1.0), ("one", 1e-9)):
        config = tiny(
            data=(Source(url),), workers=1, epochs=2, log_every=1, checkpoint_every=4,
            prefetch_gb=ahead,
        )  # fmt: skip
        pretrain(config, output=tmp_path / name, log=quiet)
        lines = read_metrics(tmp_path / name / "metrics.jsonl")[1:]  # the first waits for its start
        shares.append(sum(line["data_wait"] for line in lines) / len(lines))
    assert shares[0] < 0.1, shares
    assert shares[1] > 0.2, "one at a time is what the network takes"


@KINDS
def test_a_missing_object_is_an_unreadable_clip(
    tiny: Tiny, url: str, proxy: Proxy, tmp_path: Path
) -> None:
    """Gone after the index was fetched: of Lance, the same file says what is in it."""
    name, _ = open_store(url).where(7)  # type: ignore[attr-defined]
    proxy.hostile = lambda path: (404, {}, b"") if path.endswith(name) else None
    config = tiny(data=(Source(url),), workers=1, epochs=1, warmup_epochs=0)
    pretrain(config, output=tmp_path / "run", log=quiet)
    failures = read_report(tmp_path / "run" / "bad_files.rank0.jsonl")
    assert failures
    for failure in failures:
        assert failure.reason == f"its file {name} is missing"
        assert (failure.list_path, failure.row is not None) == (url, True)


@pytest.mark.parametrize(("workers", "kind"), [(0, "tar"), (1, "tar"), (1, "lance")])
def test_an_unreachable_store_is_waited_for_then_the_run_is_saved_and_ends(
    tiny: Tiny, url: str, proxy: Proxy, expected: list[object], tmp_path: Path, workers: int
) -> None:
    config = tiny(data=(Source(url),), workers=workers, store_timeout=0.1, prefetch_gb=1e-6)
    output = tmp_path / "run"

    def fall(line: str) -> None:
        if "step 4/8" in line or "4/8" in line:
            proxy.down = True

    with pytest.raises(StoreUnreachableError, match=r"can't be reached.*\d of 8 steps are done"):
        pretrain(config, output=output, log=fall)
    done = len(losses(output))
    assert 4 <= done < 8
    assert (output / "checkpoints" / f"step-{done:08d}" / "state.json").exists()
    proxy.down = False
    pretrain(config, output=output, log=quiet)
    assert losses(output) == expected


@pytest.mark.parametrize(("workers", "silent"), [(0, True), (1, True), (1, False)])
def test_a_run_that_waits_for_its_store_is_stopped_at_once(
    tiny: Tiny, url: str, proxy: Proxy, expected: list[object], tmp_path: Path, workers: int,
    silent: bool,
) -> None:  # fmt: skip
    """Whether it answers by errors or not at all; the run is saved and goes on."""
    config = tiny(data=(Source(url),), workers=workers, prefetch_gb=1e-6, accumulation=2)
    output, asked = tmp_path / "run", []

    def ask() -> None:
        asked.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    def fall(line: str) -> None:
        if "4/8" in line:
            proxy.delay, proxy.down = (60.0, False) if silent else (0.0, True)
            threading.Timer(1.0, ask).start()

    with pytest.raises(InterruptedRunError, match=r"stopped by SIGTERM with \d of 8 steps done"):
        pretrain(config, output=output, log=fall)
    assert time.monotonic() - asked[0] < 15, "a second or so, on a machine with time"
    done = len(losses(output))
    assert 4 <= done < 8
    proxy.delay, proxy.down = 0.0, False
    pretrain(config, output=output, log=quiet)
    whole = [pytest.approx(line, rel=1e-5) for line in expected]  # in two parts of a step
    assert losses(output) == whole


def test_a_store_that_comes_back_costs_time_only(
    tiny: Tiny, url: str, proxy: Proxy, expected: list[object], tmp_path: Path
) -> None:
    def fall(line: str) -> None:
        if "4/8" in line:
            proxy.down = True
            threading.Timer(2.0, lambda: setattr(proxy, "down", False)).start()

    config = tiny(data=(Source(url),), workers=1, prefetch_gb=1e-6)
    pretrain(config, output=tmp_path / "run", log=fall)
    assert losses(tmp_path / "run") == expected


def test_a_lance_store_that_grew_and_shrank(
    stores: Callable[[str], Path], proxy: Proxy, server: str, tmp_path: Path
) -> None:
    """Rows are found where Lance says, whichever files they are left in."""
    lance: Any = pytest.importorskip("lance")
    store = tmp_path / "clips.lance"
    shutil.copytree(stores("lance"), store)
    gone = tuple(open_store(store).row(row).crc32 for row in (2, 6))
    lance.dataset(str(store)).delete(f"crc32 in {gone}")
    local, remote = open_store(store), open_store(upload(server, store, tmp_path.name))
    assert len(local) == len(remote) == 6
    for row in range(6):
        assert remote.row(row) == local.row(row)
        assert remote.read(row) == local.read(row)
    before = open_store(remote.path, 1)
    assert [before.read(row) for row in range(5)] == [
        open_store(store, 1).read(row) for row in range(5)
    ]
    about = next((tmp_path / "cache").rglob("about.json"))
    about.write_text("{")
    with pytest.raises(StoreError, match=r"can't be read .*: remove this folder"):
        [open_store(remote.path, version) for version in (1, 3)]


def test_what_is_no_lance_store(proxy: Proxy, server: str, tmp_path: Path, tiny_list: Path) -> None:
    lance: Any = pytest.importorskip("lance")
    import pyarrow

    with pytest.raises(StoreError, match=r"nothing\.lance: no store: it has no _versions"):
        open_store(f"s3://{BUCKET}/nothing.lance")
    other = tmp_path / "other.lance"
    lance.write_dataset(pyarrow.table({"x": [1]}), str(other))
    with pytest.raises(StoreError, match="a Lance data set without clip, crc32"):
        open_store(upload(server, other, f"{tmp_path.name}-other"))
    store, old = write_store(tmp_path / "a.lance", tiny_list, kind="lance"), tmp_path / "b.lance"
    rows = lance.dataset(str(store)).to_table(blob_handling="all_binary")
    lance.write_dataset(rows, str(old), data_storage_version="2.0", schema=seam.schema())
    with pytest.raises(StoreError, match=r"is of Lance's format 2\.0.*2\.1, as videomae-fast"):
        open_store(upload(server, old, f"{tmp_path.name}-old"))
    proxy.down = True
    with pytest.raises(StoreError, match=r"a\.lance/_versions can't be reached"):
        open_store(f"s3://{BUCKET}/a.lance")


def test_what_is_no_store(
    url: str, proxy: Proxy, server: str, store: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with pytest.raises(StoreError, match=r"no store: .*store\.json"):
        open_store(f"s3://{BUCKET}/nothing")
    damaged = tmp_path / "damaged"
    shutil.copytree(store, damaged)
    (damaged / "part-00001" / "text.npy").write_bytes(b"short")
    with pytest.raises(StoreError, match="is not what its head says"):
        open_store(upload(server, damaged, f"{tmp_path.name}-damaged"))
    with pytest.raises(StoreError, match=r"can't be (opened|reached)"):
        open_store("az://x")
    opened = open_store(url)
    proxy.cut_every = 1
    with pytest.raises((StoreUnreachableError, StoredClipError)):
        opened.read(0)
    proxy.cut_every = 0
    assert wrong_rows(Rows(url, 1, 0, 8)) == []
    for words in (["import", url, str(store)], ["append", url, str(store)], ["export", url, url]):
        assert cli.main(["store", *words]) == 2
        assert "stores are written on a disk" in capsys.readouterr().err
    proxy.down = True
    with pytest.raises(StoreError, match="can't be reached"):
        open_store(url)
    opening.opened.cache_clear()
    with pytest.raises(StoreUnreachableError):  # by a run that has begun: no clip's fault
        opening.opened(url, 1)
