"""Object stores that do what they should not: nobody waits in vain, and no clip is another."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.object_store import KINDS, Answer, Proxy
from tests.support.runs import losses, quiet
from videomae_fast.data import Source, read_report
from videomae_fast.data.errors import StoreRefusedError, StoreUnreachableError
from videomae_fast.data.store.base import ClipStore, StoredClipError, StoreError
from videomae_fast.data.store.opening import open_store
from videomae_fast.data.store.patience import patiently
from videomae_fast.recipes import PretrainConfig
from videomae_fast.tasks.pretraining import pretrain

pytest.importorskip("obstore")
Tiny = Callable[..., PretrainConfig]


def refused(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()


REFUSALS: list[Answer] = [
    (403, {}, refused("InvalidAccessKeyId")),
    (403, {}, refused("AccessDenied")),
    (401, {}, b"who is there?"),
    (400, {}, refused("ExpiredToken")),
]
WITH_CLIPS = (".tar", ".lance")


def clips_only(answer: Answer) -> Callable[[str], Answer | None]:
    return lambda path: answer if path.endswith(WITH_CLIPS) else None


def at_once(store: ClipStore, row: int) -> bytes:
    """A clip, for which a run would wait for five minutes."""
    begin = time.monotonic()
    try:
        return patiently(lambda: store.read(row), 300.0, lambda: False)
    finally:
        assert time.monotonic() - begin < 20, "a moment, on a machine with time"


@KINDS
def test_a_server_that_gives_other_parts(url: str, store: Path, proxy: Proxy) -> None:
    """The whole file, with and without a word on it, or another range: none is a clip."""
    remote = open_store(url)
    name, place = remote.where(6)  # type: ignore[attr-defined]
    whole = (store / name).read_bytes()
    part = {"Content-Range": f"bytes 0-{place.size - 1}/{len(whole)}"}
    for answer in ((200, {}, whole), (206, {}, whole), (206, part, whole[: place.size])):
        proxy.hostile = clips_only(answer)
        with pytest.raises(StoreRefusedError, match=rf"{url}/{name}: .*Range.*copy it to a disk"):
            at_once(remote, 6)
    proxy.hostile = lambda _: None
    assert at_once(remote, 6) == open_store(store).read(6)


@KINDS
def test_redirects(url: str, store: Path, proxy: Proxy) -> None:
    """One that says where to is followed; others end it."""
    remote, path = open_store(url), url.removeprefix("s3:/")
    name, _ = remote.where(5)  # type: ignore[attr-defined]
    here = {"Location": f"{proxy.address}{path}/{name}"}
    there = {"Location": f"{proxy.address}{path}/{name}?elsewhere"}
    proxy.hostile = clips_only((307, there, b""))
    assert at_once(remote, 5) == open_store(store).read(5)
    wrong_region = 400, {}, refused("AuthorizationHeaderMalformed")
    for answer in ((307, here, b""), (301, {}, refused("PermanentRedirect")), wrong_region):
        proxy.hostile = clips_only(answer)
        with pytest.raises(StoreRefusedError, match=rf"{url}/{name}: .*elsewhere.*AWS_REGION"):
            at_once(remote, 5)
    proxy.hostile = clips_only((503, {}, b"later"))  # this store's name speaks of redirects
    with pytest.raises(StoreUnreachableError, match="can't be reached"):
        remote.read(5)


@KINDS
def test_credentials_that_are_refused(url: str, proxy: Proxy) -> None:
    remote = open_store(url)
    for answer in REFUSALS:
        proxy.hostile = lambda _, answer=answer: answer  # type: ignore[misc]
        said = r"access is refused: .*AWS_ACCESS_KEY_ID.*not expired"
        with pytest.raises(StoreRefusedError, match=rf"{url}/\S+: {said}"):
            at_once(remote, 0)
        with pytest.raises(StoreError, match=rf"{url}/\S+: {said}") as told:
            open_store(url)
        assert "reached" not in str(told.value)


def test_credentials_that_expire_in_a_run(
    tiny: Tiny, url: str, proxy: Proxy, tmp_path: Path
) -> None:
    """It is saved and ends at once; with new ones it goes on."""
    config = tiny(data=(Source(url),), prefetch_gb=1e-6, store_timeout=300.0)

    def expire(line: str) -> None:
        if "4/8" in line:
            proxy.hostile = lambda _: REFUSALS[-1]

    begin = time.monotonic()
    with pytest.raises(
        StoreUnreachableError, match=r"access is refused.*\d of 8 steps are done; saved"
    ):
        pretrain(config, output=tmp_path / "run", log=expire)
    assert time.monotonic() - begin < 100
    proxy.hostile = lambda _: None
    pretrain(config, output=tmp_path / "run", log=quiet)
    assert [step for step, *_ in losses(tmp_path / "run")] == list(range(8))


@KINDS
def test_objects_that_are_replaced(url: str, store: Path, proxy: Proxy) -> None:
    """By others of the same size, and by shorter ones that end within or before a clip."""
    remote = open_store(url)
    name, place = remote.where(5)  # type: ignore[attr-defined]
    end = place.offset + place.size
    kept = (store / name).read_bytes()[place.offset : end - 1]
    total = place.offset + len(kept)
    short = {"Content-Range": f"bytes {place.offset}-{total - 1}/{total}"}
    same = {"Content-Range": f"bytes {place.offset}-{end - 1}/{end}"}
    known = rf"{url} row 5 \(.*5\.mp4\): its"
    for answer, reason in (
        ((206, same, kept + b"?"), f"bytes in {name} are not those that were written"),
        ((206, same, kept + b"??"), f"bytes in {name} are not those that were written"),
        ((206, short, kept), f"file {name} is cut off"),
        ((416, {}, refused("InvalidRange")), f"file {name} is cut off"),
    ):
        proxy.hostile = clips_only(answer)
        with pytest.raises(StoredClipError, match=f"{known} {reason}"):
            at_once(remote, 5)


def test_an_object_that_is_replaced_in_a_run(
    tiny: Tiny, url: str, proxy: Proxy, tmp_path: Path
) -> None:
    """Its clips are reported with store, row and source."""
    name, place = open_store(url).where(7)  # type: ignore[attr-defined]
    said = {"Content-Range": f"bytes {place.offset}-{place.offset + place.size - 1}/999999"}
    other = 206, said, bytes(place.size)
    proxy.hostile = lambda path: other if path.endswith(name) else None
    config = tiny(data=(Source(url, contains="7.mp4"),), epochs=1, warmup_epochs=0,
                  max_failed_share=1.0, videos_per_step=1)  # fmt: skip
    pretrain(config, output=tmp_path / "run", log=quiet)
    (failure,) = read_report(tmp_path / "run" / "bad_files.rank0.jsonl")
    assert failure.reason == f"its bytes in {name} are not those that were written"
    assert (failure.list_path, failure.row) == (url, 7)
    assert failure.path.endswith("/7.mp4")
    assert json.loads((tmp_path / "run" / "bad_files.rank0.jsonl").read_text())["row"] == 7
