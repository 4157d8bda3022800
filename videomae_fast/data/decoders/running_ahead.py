"""Things made by a thread before they are asked for: decoding beside a model."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import Final, TypeVar

Item = TypeVar("Item")
_LOOK: Final = 0.05  # seconds between looks at whether anybody still wants items


class _End:
    """Behind the last item; with what ended them, if it was an error."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def running_ahead(items: Iterator[Item], depth: int = 1) -> Generator[Item]:
    """Yields the items of an iterator that a thread of its own runs through.

    At most `depth` finished items wait, while the thread works on one more. When the generator is
    closed, the thread has ended: what it uses may be closed too. So close it, with
    ``contextlib.closing``, where an error may leave it half-way.

    Args:
        items: nobody else may use it.
        depth: at least 1.

    Yields:
        The items, in their order.

    Raises:
        ValueError: a depth below 1.
        BaseException: what the iterator raises, at the place of the item that was to come.
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, not {depth}")
    made: Queue[Item | _End] = Queue(depth)
    unwanted = threading.Event()

    def put(item: Item | _End) -> None:
        while not unwanted.is_set():
            with suppress(Full):
                made.put(item, timeout=_LOOK)
                return

    def run() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                put(item)
                if unwanted.is_set():
                    break
        except BaseException as raised:  # handed to who takes the items
            error = raised
        put(_End(error))

    thread = threading.Thread(target=run, name="running-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item = made.get()
            if not isinstance(item, _End):
                yield item
                del item  # not kept alive while the next one is waited for
                continue
            if item.error is not None:
                raise item.error
            return
    finally:
        unwanted.set()
        while thread.is_alive():
            try:
                made.get(timeout=_LOOK)
            except Empty:
                thread.join(_LOOK)
