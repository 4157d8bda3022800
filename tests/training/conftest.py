"""Tiny runs: eight short H.264 clips, a model of one block, two steps per epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.object_store import Proxy, proxy_before, s3_server, upload, use
from tests.support.runs import TINY, altered
from tests.support.stores import write_store
from tests.support.videos import texture, write_video
from videomae_fast.data import Source
from videomae_fast.data.store import opening
from videomae_fast.recipes import PretrainConfig

VIDEOS = 8


@pytest.fixture(scope="session")
def tiny_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``0.mp4`` ... ``7.mp4`` of 12 frames and more, 48 x 40."""
    folder = tmp_path_factory.mktemp("videos")
    for index in range(VIDEOS):
        write_video(folder / f"{index}.mp4", 12 + index, size=(48, 40), make=texture)
    return folder


@pytest.fixture(scope="session")
def tiny_list(tiny_videos: Path) -> Path:
    """The list of these clips."""
    path = tiny_videos / "train.csv"
    path.write_text("".join(f"{tiny_videos}/{index}.mp4 0 -1\n" for index in range(VIDEOS)))
    return path


@pytest.fixture(scope="session")
def broken_list(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one file that is no video."""
    bad = tmp_path_factory.mktemp("broken") / "broken.mp4"
    bad.write_bytes(b"no video at all")
    path = bad.parent / "train.csv"
    lines = [f"{tiny_videos}/{index}.mp4 0 -1\n" for index in range(VIDEOS - 1)]
    path.write_text("".join(lines) + f"{bad} 0 -1\n")
    return path


@pytest.fixture
def tiny(tiny_list: Path) -> Callable[..., PretrainConfig]:
    """A function (**options) -> PretrainConfig of a run of 8 steps; see ``altered``."""

    def make(**options: Any) -> PretrainConfig:
        return altered(PretrainConfig(), **{"data": (Source(tiny_list),), **TINY, **options})

    return make


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of an S3 server."""
    with s3_server() as address:
        yield address


@pytest.fixture(scope="session")
def stores(tiny_list: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The clips as a store of a kind; of Lance, in two files."""

    @cache
    def made(kind: str) -> Path:
        folder = tmp_path_factory.mktemp("store")
        if kind == "tar":
            return write_store(folder / "clips", tiny_list, tar_bytes=20_000)
        pytest.importorskip("lance")
        lines = tiny_list.read_text().splitlines(keepends=True)
        for number, part in enumerate((lines[:5], lines[5:])):
            (folder / f"{number}.csv").write_text("".join(part))
            write_store(folder / "clips.lance", folder / f"{number}.csv", kind="lance")
        return folder / "clips.lance"

    return made


@pytest.fixture
def kind() -> str:
    """Of the store; tests of several say which."""
    return "tar"


@pytest.fixture
def store(stores: Callable[[str], Path], kind: str) -> Path:
    """On a disk."""
    return stores(kind)


@pytest.fixture
def proxy(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Proxy]:
    """What stands before the server, for this process."""
    with proxy_before(server) as proxy:
        use(monkeypatch, proxy.address, tmp_path / "cache")
        opening.opened.cache_clear()
        yield proxy
    opening.opened.cache_clear()


@pytest.fixture
def url(proxy: Proxy, server: str, store: Path, tmp_path: Path) -> str:
    """Of the store, on the server."""
    return upload(server, store, tmp_path.name)
