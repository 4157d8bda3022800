"""Stored clips fetched ahead of the processes that decode them, in the order of the draws."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from videomae_fast.data.cache import CachedVideos
from videomae_fast.data.decoders import DECODERS
from videomae_fast.data.loader.slots import Slot, SlotWriter
from videomae_fast.data.reading import ClipRequest, ReadSettings
from videomae_fast.data.store.base import StoredClipError
from videomae_fast.data.store.fetched import FetchedClip
from videomae_fast.data.store.opening import StoredClip
from videomae_fast.data.store.patience import patiently
from videomae_fast.recipes.source import remote_url

THREADS: Final = 64
"""Requests to an object store at a time."""

MOST: Final = 4096
"""Clips ahead, however small they are."""

Fetched = tuple[FetchedClip, Slot | None]


@dataclass
class _Ahead:
    """A request, the bytes that are fetched for it, and these on their way."""

    request: ClipRequest
    size: int
    coming: Future[Fetched] | None = None


class Fetching:
    """Takes requests in their order, and gives them out in it once their clips are there.

    Only clips of object stores are fetched, and those that the cache has not; others pass. One
    thread uses it.

    Args:
        requests: to be read.
        settings: how they are read; ``prefetch_bytes`` is for what is fetched and not yet released.
        wake: called, from any thread, when the next :meth:`take` may give a request.
    """

    def __init__(
        self, requests: Iterator[ClipRequest], settings: ReadSettings, wake: Callable[[], None]
    ) -> None:
        self._requests, self._settings, self._wake = requests, settings, wake
        self._ahead: deque[_Ahead] = deque()
        self._no_room: _Ahead | None = None
        self._held: dict[int, tuple[int, Slot | None]] = {}
        self._taken = self._bytes = 0
        self._threads: ThreadPoolExecutor | None = None
        self._stopped = threading.Event()

    def take(self) -> ClipRequest | None:
        """The next request; None while its clip is on its way.

        Raises:
            StopIteration: there is none left.
            StoreUnreachableError: its store could not be reached for too long.
        """
        self._fill()
        if not self._ahead:
            raise StopIteration
        first, slot = self._ahead[0], None
        request = first.request
        if first.coming is not None:
            if not first.coming.done():
                return None
            clip, slot = first.coming.result()
            request = replace(request, file=clip)
        self._ahead.popleft()
        self._held[self._taken] = first.size, slot
        self._taken += 1
        return request

    def release(self, number: int) -> None:
        """Says that a request, by its number in order, was dealt with."""
        size, slot = self._held.pop(number)
        self._bytes -= size
        if slot is not None:
            slot.close()

    def close(self) -> None:
        """Gives the memory back; what is on its way is dropped when it comes."""
        self._stopped.set()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        for ahead in self._ahead:
            if ahead.coming is not None:
                ahead.coming.add_done_callback(_drop)
        self._ahead.clear()
        for number in list(self._held):
            self.release(number)

    def _fill(self) -> None:
        """Begins what there is room for; the first one always."""
        while len(self._ahead) < MOST:
            following = self._no_room or self._pulled()
            self._no_room = None
            if following is None:
                return
            if self._ahead and self._bytes + following.size > self._settings.prefetch_bytes:
                self._no_room = following
                return
            self._ahead.append(following)
            if following.size:
                self._begin(following)
            elif self._threads is None:
                return  # of lists, nothing is fetched: they are not run through beforehand

    def _pulled(self) -> _Ahead | None:
        request = next(self._requests, None)
        if request is None:
            return None
        return _Ahead(request, _bytes_to_fetch(request, self._settings))

    def _begin(self, ahead: _Ahead) -> None:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="clip-fetcher")
        clip = ahead.request.file
        assert isinstance(clip, StoredClip)
        self._bytes += ahead.size
        ahead.coming = self._threads.submit(self._fetch, clip)
        ahead.coming.add_done_callback(lambda _: self._wake())

    def _fetch(self, clip: StoredClip) -> Fetched:
        found = FetchedClip(clip, clip.name, clip.size, clip.checksum)
        try:
            content = patiently(
                lambda: clip.store.read(clip.number),
                self._settings.store_timeout,
                self._stopped.is_set,
            )
        except StoredClipError as error:
            return replace(found, failed=error), None
        slot = Slot()
        try:
            SlotWriter().write(slot.path, np.frombuffer(content, dtype=np.uint8))
        except BaseException:
            slot.close()
            raise
        return replace(found, path=slot.path), slot


def _drop(coming: Future[Fetched]) -> None:
    """Gives the memory of a clip back that nobody takes any more."""
    with suppress(BaseException):  # it was cancelled, or failed
        slot = coming.result()[1]
        if slot is not None:
            slot.close()


def _bytes_to_fetch(request: ClipRequest, settings: ReadSettings) -> int:
    clip = request.file
    if not isinstance(clip, StoredClip) or remote_url(clip.path) is None:
        return 0
    try:
        return 0 if _is_cached(clip, settings.cache, settings.decoder) else clip.size
    except StoredClipError:  # a damaged index: told by who reads it
        return 0


def _is_cached(clip: StoredClip, cache: CachedVideos | None, decoder: str) -> bool:
    return cache is not None and os.path.exists(cache.place(clip, DECODERS[decoder]))
