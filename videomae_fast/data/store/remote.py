"""Tar stores in an object store: ranges by ``obstore``, the index kept on this machine."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import zlib
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeVar

from videomae_fast.data.errors import OutputError, StoppedWaitingError, sentence
from videomae_fast.data.store.base import StoreError
from videomae_fast.data.store.head import HEAD, Stored, read_head, version_of
from videomae_fast.data.store.index import FILES
from videomae_fast.data.store.patience import awaited
from videomae_fast.data.store.refusals import is_behind_end, understood
from videomae_fast.data.store.tar import TarStore
from videomae_fast.errors import BackendUnavailableError
from videomae_fast.extras import install

T = TypeVar("T")

PART: Final = 1 << 25
"""Bytes of an index that are fetched by one request."""

# What obstore tries by itself; what takes longer is waited for by `patiently`.
_CLIENT: Final = {"timeout": "30s", "connect_timeout": "5s"}
_TRIES, _SECONDS = 3, 20
_RETRIES: Final[dict[str, Any]] = {
    "max_retries": _TRIES,
    "retry_timeout": timedelta(seconds=_SECONDS),
}


def obstore() -> Any:
    """The package.

    Raises:
        BackendUnavailableError: it is not installed.
    """
    if find_spec("obstore") is None:
        raise BackendUnavailableError(f"obstore is not installed: {install('obstore')}")
    import obstore
    import obstore.store

    return obstore


_BEGINNING: Final = threading.Lock()


class RemoteRanges:
    """Parts of objects below a URL. Credentials, region and endpoint are those of the environment
    (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL`` and so on), as obstore reads them.

    Raises:
        BackendUnavailableError: obstore is not installed.
        StoreError: a URL that it does not take.
    """

    def __init__(self, url: str) -> None:
        self._package = obstore()
        client = {**_CLIENT, "allow_http": _without_tls(url)}
        try:
            self._store = self._package.store.from_url(
                url, client_options=client, retry_config=dict(_RETRIES)
            )
        except Exception as error:  # its errors are of several kinds
            raise StoreError(f"{url}: can't be opened: {sentence(error)}") from error
        self._url = url

    def read(self, name: str, offset: int, size: int) -> bytes:
        """See :class:`~.tar.Ranges`.

        Raises:
            FileNotFoundError: there is no such object.
            StoreRefusedError: the store answers, and would answer the same again.
            StoreUnreachableError: anything else: the next try may succeed.
        """

        async def content() -> bytes:
            try:
                return bytes(
                    await self._package.get_range_async(
                        self._store, name, start=offset, length=size
                    )
                )
            except Exception as error:
                if is_behind_end(error):
                    return b""
                raise

        return self._asked(name, content())

    def whole(self, name: str) -> bytes:
        """An object; raises as :meth:`read` does."""

        async def content() -> bytes:
            return bytes(await (await self._package.get_async(self._store, name)).bytes_async())

        return self._asked(name, content())

    def has(self, folder: str) -> bool:
        """Whether there is any object in a folder; raises as :meth:`read` does."""

        async def found() -> bool:
            async for _ in self._package.list(self._store, folder, chunk_size=1):
                return True
            return False

        return self._asked(folder, found())

    def close(self) -> None:
        """obstore lets go of its connections by itself."""

    def _asked(self, name: str, answer: Coroutine[Any, Any, T]) -> T:
        try:
            return _wait(answer)
        except StoppedWaitingError:
            raise
        except Exception as error:  # of the network, of the server, of the credentials
            raise understood(f"{self._url}/{name}", error) from error


def _wait(answer: Coroutine[Any, Any, T]) -> T:
    """An answer that comes to another thread: what waits can be called off, and what answers can't
    keep the process from ending."""
    with _BEGINNING:  # else threads that ask for the first time begin one each
        network = _network(os.getpid())
    return awaited(asyncio.run_coroutine_threadsafe(answer, network))


@cache
def _network(_: int) -> asyncio.AbstractEventLoop:
    """Where a process's requests are made; a child has to have its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="object-store", daemon=True).start()
    return loop


def _without_tls(url: str) -> bool:
    """Whether the environment, or the URL, asks for a server that has no encryption: options that
    are given here keep obstore from looking there."""
    asked = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes")
    return asked or url.startswith("http:")


def lance_options(url: str) -> dict[str, str]:
    """The same for Lance, whose network is of the same make."""
    return {
        **_CLIENT,
        "allow_http": str(_without_tls(url)).lower(),
        "client_max_retries": str(_TRIES),
        "client_retry_timeout": str(_SECONDS),
    }


def open_remote_store(url: str, version: int | None = None) -> TarStore:
    """Opens a tar store in an object store; its index is fetched once to this machine.

    Args:
        url: of the folder with ``store.json``.
        version: None: the newest.

    Raises:
        StoreError: there is none, or it can't be read.
        StoreUnreachableError: it can't be reached.
        OutputError: the index can't be kept.
        BackendUnavailableError: obstore is not installed.
    """
    url = url.rstrip("/")
    ranges = RemoteRanges(url)
    try:
        parts = version_of(read_head(ranges.whole(HEAD), f"{url}/{HEAD}"), version, url)
        indices: list[Mapping[str, Path]] = [
            {what: _kept(url, ranges, part.index[what]) for what in FILES} for part in parts
        ]
    except FileNotFoundError as error:
        raise StoreError(
            f"{url}: no store: {error.filename} is not there (copy a tar store's folder there, "
            "store.json last)"
        ) from None
    return TarStore(url, len(parts), parts, indices, ranges)


def index_folder() -> Path:
    """Where indices of remote stores are kept: below ``XDG_CACHE_HOME`` or ``~/.cache``."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "videomae-fast" / "stores"


def _kept(url: str, ranges: RemoteRanges, wanted: Stored) -> Path:
    """A file of an index, on this machine; fetched where it is not there yet."""
    key = hashlib.sha256(f"{url}\0{wanted.name}\0{wanted.bytes}\0{wanted.crc32}".encode())
    path = index_folder() / f"{key.hexdigest()[:40]}.npy"
    with suppress(OSError):
        if path.stat().st_size == wanted.bytes:
            return path
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _fetched(ranges, wanted, partial) != (wanted.bytes, wanted.crc32):
            raise StoreError(
                f"{url}/{wanted.name}: the store's index is not what its head says: it was copied "
                "in part, or damaged; copy it again"
            )
        os.replace(partial, path)
    except FileNotFoundError:  # of the store
        raise
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def _fetched(ranges: RemoteRanges, wanted: Stored, target: Path) -> tuple[int, int]:
    """Bytes and CRC-32 of an object that is fetched in parts: a long one takes longer than a
    request may, and more memory than a process should."""
    size = crc = 0
    with target.open("wb") as file:
        while size < wanted.bytes:
            asked = min(PART, wanted.bytes - size)
            part = ranges.read(wanted.name, size, asked)
            file.write(part)
            size, crc = size + len(part), zlib.crc32(part, crc)
            if len(part) < asked:
                break
    return size, crc
