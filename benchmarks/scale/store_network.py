"""What a network that is slow, fails and cuts costs a run that reads its clips through it.

The store lies behind a server of this process, which delays every answer; batches are taken by a
step that only sleeps. What is measured is waiting, requests and bytes, not decoding: clips are
small.
"""

from __future__ import annotations

import itertools
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.reading.material import Rendering, render
from videomae_fast.data import ClipDataset, Source, clip_loader
from videomae_fast.data.store.filling import Filling, fill_store
from videomae_fast.data.store.opening import open_store, opened


@dataclass(frozen=True)
class Network:
    """Seconds before each answer; of the answers that have clips, one in so many is an error, or
    ends in the middle; 0: none."""

    delay: float = 0.05
    fail_every: int = 100
    cut_every: int = 100


class Server(ThreadingHTTPServer):
    """Gives parts of a folder's files; counts what it gave of tar files."""

    daemon_threads = True

    def __init__(self, folder: Path, network: Network) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.network = folder, network
        self.counts: Counter[str] = Counter()
        self.numbers = itertools.count(1)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        network, counts = self.server.network, self.server.counts
        time.sleep(network.delay)
        path = self.server.folder / self.path.lstrip("/")
        if not path.is_file():
            self._answer(404, b"", {})
            return
        content, total = path.read_bytes(), path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        headers = {"Last-Modified": self.date_time_string(int(path.stat().st_mtime))}
        status = 200
        if asked:
            begin, last = int(asked[1]), min(int(asked[2]), total - 1)
            content, status = content[begin : last + 1], 206
            headers["Content-Range"] = f"bytes {begin}-{last}/{total}"
        if path.suffix != ".tar":
            self._answer(status, content, headers)
            return
        number = next(self.server.numbers)
        counts["requests"] += 1
        if network.fail_every and number % network.fail_every == 0:
            counts["failed"] += 1
            self._answer(503, b"", {})
        elif network.cut_every and number % network.cut_every == network.cut_every // 2:
            counts["cut"] += 1
            counts["bytes"] += len(content) // 2
            self._answer(status, content, headers, len(content) // 2)
        else:
            counts["bytes"] += len(content)
            self._answer(status, content, headers)

    def _answer(
        self, status: int, content: bytes, headers: dict[str, str], cut: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[:cut])
        self.close_connection = self.close_connection or cut is not None


def write_clips(folder: Path, count: int) -> Path:
    """A tar store of so many small videos, below a folder."""
    videos = [
        render(Rendering(folder / f"{number}.mp4", number, 48, 64, 48)) for number in range(count)
    ]
    listed = folder / "clips.csv"
    listed.write_text("".join(f"{path} 0 -1\n" for path in videos), encoding="utf-8")
    fill_store(folder / "served" / "clips", [listed], Filling(), new=True)
    return folder / "served"


@contextmanager
def _served(folder: Path, network: Network, kept: Path) -> Iterator[Server]:
    with (
        Server(folder, network) as server,
        patch.dict(os.environ, {"XDG_CACHE_HOME": str(kept), "AWS_ALLOW_HTTP": "true"}),
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
            opened.cache_clear()


def waited(
    served: Path, kept: Path, network: Network, *, ahead: int, steps: int, videos: int, sleep: float
) -> dict[str, Any]:
    """A run of steps that sleep.

    Args:
        served: folder with the store ``clips``.
        kept: where its index is kept.
        network: before it.
        ahead: clips that there is room for.
        steps: how many, after the first, which waits for processes to start.
        videos: of a step.
        sleep: seconds in the place of a step.

    Returns:
        The share of the time that was waited; requests and bytes for each clip that was given, and
        of the requests those that failed or were cut.
    """
    with _served(served, network, kept) as server:
        url = f"{server.address}/clips"
        store = open_store(url)
        sizes = [store.row(row).size for row in range(len(store))]
        dataset = ClipDataset(
            [Source(Path(url))],
            frames=4,
            stride=2,
            image_size=32,
            samples=1,
            prefetch_bytes=ahead * max(sizes),
        )
        waiting, failures = 0.0, 0
        batches = clip_loader(
            dataset, videos_per_step=videos, total_steps=1 + steps, workers=1, prefetch=1
        )
        failures += len(next(batches).failures)
        begin = time.perf_counter()
        for _ in range(steps):
            asked = time.perf_counter()
            failures += len(next(batches).failures)
            waiting += time.perf_counter() - asked
            time.sleep(sleep)
        seconds = time.perf_counter() - begin
        counts = server.counts
        for _ in batches:
            pass
    given = (1 + steps) * videos
    draws = [
        draw for step in range(1 + steps) for draw in dataset.order.draws(step, videos, 0, videos)
    ]
    return {
        "network": asdict(network),
        "ahead": ahead,
        "clips": given,
        "clips_per_s": steps * videos / seconds,
        "waiting_share": waiting / seconds,
        "unreadable": failures,
        "requests_per_clip": counts["requests"] / given,
        "bytes_per_clip_byte": counts["bytes"] / sum(sizes[draw.entry] for draw in draws),
        "failed": counts["failed"],
        "cut": counts["cut"],
    }
