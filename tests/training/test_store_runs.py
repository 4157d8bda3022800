"""Runs that read a store: those of the list of the same files, to the last bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.labelled import tiny_config, write_set
from tests.support.launches import COMMAND, Host
from tests.support.runs import TINY, altered, interrupt_after, losses, options, quiet
from tests.support.stores import flip_byte, write_store
from videomae_fast import cli
from videomae_fast.data import ListError, Source, read_report
from videomae_fast.data.store import opening
from videomae_fast.data.store.opening import open_store
from videomae_fast.errors import CheckpointError, UsageError
from videomae_fast.recipes import PretrainConfig
from videomae_fast.recipes.plan import Stage
from videomae_fast.tasks.classification import finetune
from videomae_fast.tasks.pretraining import pretrain
from videomae_fast.tasks.progressive.record import record_of
from videomae_fast.training.checkpoint import read

Tiny = Callable[..., PretrainConfig]


@pytest.fixture(scope="module")
def store(tiny_list: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In several tar files."""
    return write_store(tmp_path_factory.mktemp("store") / "clips", tiny_list, tar_bytes=20_000)


@pytest.fixture(scope="module")
def of_the_list(tiny_list: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run over the list."""
    output = tmp_path_factory.mktemp("list")
    config = altered(PretrainConfig(), data=(Source(tiny_list),), **TINY)
    pretrain(config, output=output, log=quiet)
    return output


@pytest.mark.parametrize("workers", [0, 1])
def test_the_same_losses_from_lance(
    tiny: Tiny, of_the_list: Path, tiny_list: Path, tmp_path: Path, workers: int
) -> None:
    pytest.importorskip("lance")
    store = write_store(tmp_path / "clips.lance", tiny_list, kind="lance")
    pretrain(tiny(data=(Source(store),), workers=workers), output=tmp_path / "run", log=quiet)
    assert losses(tmp_path / "run") == losses(of_the_list)
    said = json.loads((tmp_path / "run" / "config.json").read_text())
    assert said["data"]["lists"][0]["version"] == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_losses(
    tiny: Tiny, store: Path, of_the_list: Path, tmp_path: Path, workers: int
) -> None:
    config = tiny(data=(Source(store),), workers=workers)
    result = pretrain(config, output=tmp_path, log=quiet)
    assert losses(tmp_path) == losses(of_the_list)
    state = read(result.checkpoint).state
    assert state["config"]["data"]["lists"][0]["version"] == 1
    named = (tmp_path / "config.json").read_text()
    assert json.loads(named)["data"]["lists"][0]["version"] == 1


def test_the_same_losses_with_a_cache(
    tiny: Tiny, store: Path, of_the_list: Path, tmp_path: Path
) -> None:
    config = tiny(data=(Source(store),), cache=str(tmp_path / "cache"))
    pretrain(config, output=tmp_path / "run", log=quiet)
    assert losses(tmp_path / "run") == losses(of_the_list)
    assert len(list((tmp_path / "cache").glob("*.frames"))) == 8


def test_the_same_losses_in_two_processes(
    host: Host, store: Path, of_the_list: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    words = ["pretrain", *options(data=store), "--output", str(output)]
    host.start(2, COMMAND, words, tmp_path / "log").finish()
    for one, other in zip(losses(output), losses(of_the_list), strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_a_run_goes_on_with_the_version_that_it_began_with(
    tiny: Tiny, store: Path, of_the_list: Path, tiny_list: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    grows = tmp_path / "clips"
    shutil.copytree(store, grows)
    config, output = tiny(data=(Source(grows),), checkpoint_every=1), tmp_path / "run"

    class StopError(Exception):
        pass

    def stop() -> None:
        raise StopError

    with monkeypatch.context() as patched:
        interrupt_after(patched, 3, stop)
        with pytest.raises(StopError):
            pretrain(config, output=output, log=quiet)
    write_store(grows, tiny_list)
    assert (open_store(grows).version, len(open_store(grows))) == (2, 16)
    pretrain(config, output=output, log=quiet)
    assert losses(output) == losses(of_the_list)
    with pytest.raises(CheckpointError, match=r"is of another run: data\.lists was"):
        pretrain(tiny(data=(Source(grows, version=2),)), output=output, log=quiet)


@pytest.mark.parametrize("kind", ["tar", "lance"])
def test_another_store_of_the_same_path_and_version_is_another_run(
    tiny: Tiny, tiny_list: Path, tmp_path: Path, kind: str
) -> None:
    """Of as many rows; a copy of the first one is the same."""
    if kind == "lance":
        pytest.importorskip("lance")
    other = tmp_path / "turned.csv"
    other.write_text("\n".join(tiny_list.read_text().splitlines()[::-1]))
    stores = [
        write_store(tmp_path / name, one, kind=kind)
        for name, one in (("first", tiny_list), ("other", other))
    ]

    def go_on(steps: int) -> None:
        config = tiny(data=(Source(tmp_path / "clips"),), steps=steps, warmup_epochs=0)
        pretrain(config, output=tmp_path / "run", log=quiet)

    stores[0].rename(tmp_path / "clips")
    go_on(1)
    shutil.copytree(tmp_path / "clips", tmp_path / "copy")
    shutil.rmtree(tmp_path / "clips")
    stores[1].rename(tmp_path / "clips")
    opening.opened.cache_clear()
    with pytest.raises(
        CheckpointError, match=r"of another run: stores_sha256 was \['\w{64}'\] and"
    ):
        go_on(2)
    shutil.rmtree(tmp_path / "clips")
    (tmp_path / "copy").rename(tmp_path / "clips")
    opening.opened.cache_clear()
    go_on(2)


def test_a_damaged_row_is_an_unreadable_clip(
    tiny: Tiny, store: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "clips"
    shutil.copytree(store, damaged)
    name, place = open_store(damaged).where(5)  # type: ignore[attr-defined]
    flip_byte(damaged / name, place.offset + place.size // 2)
    output = tmp_path / "run"
    pretrain(tiny(data=(Source(damaged),), workers=1, epochs=1), output=output, log=quiet)
    (failure,) = read_report(output / "bad_files.rank0.jsonl")
    assert (failure.list_path, failure.row, failure.line) == (str(damaged), 5, 0)
    assert failure.path == f"{tiny_videos}/5.mp4"
    assert failure.reason == f"its bytes in {name} are not those that were written"
    assert str(failure).startswith(f"{tiny_videos}/5.mp4 ({damaged} row 5): its bytes")


def test_fine_tuning(tmp_path: Path) -> None:
    train, validation = write_set(tmp_path, 4, 1)
    finetune(tiny_config(train, validation), output=tmp_path / "list-run", log=quiet)
    stores = [
        write_store(tmp_path / f"{one.stem}-store", one, format="labels")
        for one in (train, validation)
    ]
    finetune(tiny_config(*stores), output=tmp_path / "store-run", log=quiet)
    assert losses(tmp_path / "store-run") == losses(tmp_path / "list-run")
    lines = [(tmp_path / run / "validation.jsonl").read_text() for run in ("list-run", "store-run")]
    assert lines[0] == lines[1]


def test_stores_and_lists_are_mixed(
    tiny: Tiny, store: Path, tiny_list: Path, tmp_path: Path
) -> None:
    """By weight, and with strides of their own."""
    mixed = []
    for name, second in (("list", Source(tiny_list, weight=1.0, stride=1)),
                         ("store", Source(store, weight=1.0, stride=1))):  # fmt: skip
        config = tiny(data=(Source(tiny_list, weight=3.0), second))
        pretrain(config, output=tmp_path / name, log=quiet)
        mixed.append(losses(tmp_path / name))
    assert mixed[0] == mixed[1]


def test_a_store_without_labels_trains_no_classifier(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ListError, match=r"clips row 0: has no label; 7 more are likewise"):
        finetune(
            tiny_config(store, data__classes="kinetics-400"), output=tmp_path / "run", log=quiet
        )


def test_a_plan_names_the_version(tiny: Tiny, store: Path, tiny_list: Path) -> None:
    """Else its stages could read different clips; the digest is that of the version."""
    found = []
    for version in (None, 1):
        config = tiny(data=(Source(store, version=version), Source(tiny_list)))
        stage = Stage("first", None, None, "last", config)
        if version is None:
            with pytest.raises(UsageError, match="a plan names the version of a store"):
                record_of(stage, None)
        else:
            found = record_of(stage, None).lists["data.lists"]
    assert found[0] == open_store(store, 1).digest()
    assert found[1] == sha256(tiny_list.read_bytes()).hexdigest()


def test_a_classifier_is_tested_on_a_store(tmp_path: Path) -> None:
    """With the scores of the list; a store that has grown is another test."""
    train, validation = write_set(tmp_path, 2, 1)
    run = tmp_path / "run"
    finetune(tiny_config(train, schedule__epochs=1), output=run, log=quiet)
    store = write_store(tmp_path / "store", validation, format="labels")
    options = ["--segments", "1", "--crops", "1", "--workers", "0", "--device", "cpu"]

    def tested(data: Path, name: str) -> int:
        output = str(tmp_path / name)
        return cli.main(["test", str(run), str(data), "--output", output, *options])

    assert tested(validation, "of-list") == tested(store, "of-store") == 0
    scores = []
    for name in ("of-list", "of-store"):
        lines = (tmp_path / name / "scores.jsonl").read_text().splitlines()
        scores.append([json.loads(line)["scores"] for line in lines])
    assert scores[0] == scores[1]
    assert json.loads(lines[1])["path"].endswith(f"({store} row 1)")
    write_store(store, validation, format="labels")
    assert tested(store, "of-store") == 2
