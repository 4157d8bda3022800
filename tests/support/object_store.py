"""A local S3 server, and a proxy before it that delays, fails and cuts."""

from __future__ import annotations

import http.client
import itertools
import json
import logging
import os
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.support.forked_server import serve_workers

BUCKET = "bucket"
KINDS = pytest.mark.parametrize("kind", ["tar", "lance"])
"""Of the store that a test's fixtures make."""

Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def s3_server() -> Iterator[str]:
    """The address of a server with an empty bucket."""
    server_module: Any = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        address = "http://{}:{}".format(*server.get_host_and_port())
        urlopen(Request(f"{address}/{BUCKET}", method="PUT")).close()
        yield address
    finally:
        server.stop()


def upload(address: str, folder: Path, prefix: str) -> str:
    """Copies a folder to the server; the URL of the copy, which has the folder's ending."""
    prefix += folder.suffix
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            name = f"{address}/{BUCKET}/{prefix}/{file.relative_to(folder)}"
            kind = {"Content-Type": "application/octet-stream"}  # urllib says that it is a form
            urlopen(Request(name, file.read_bytes(), kind, method="PUT"), timeout=30).close()
    return f"s3://{BUCKET}/{prefix}"


class Proxy(socketserver.ThreadingTCPServer):
    """Passes requests on, and counts requests and bytes of files with clips.

    Attributes:
        delay: seconds before each answer.
        fail_every, cut_every: each so many requests of such a file is answered by an error, or
            by half a body; 0: none.
        down: refuse everything.
        hostile: from a path to another answer than the server's (status, headers, body); None: the
            server's.
    """

    allow_reuse_address = daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = behind.removeprefix("http://")
        self.delay = 0.0
        self.fail_every = self.cut_every = 0
        self.down = False
        self.hostile: Callable[[str], Answer | None] = lambda _: None
        self.counts: Counter[str] = Counter()
        self.numbers = itertools.count(1)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        proxy = self.server
        time.sleep(proxy.delay)
        if proxy.down:
            self._answer(503, b"down")
            return
        if (other := proxy.hostile(self.path)) is not None:
            status, headers, content = other
            self._answer(status, content, headers)
            return
        connection = http.client.HTTPConnection(proxy.behind, timeout=30)
        connection.request(self.command, self.path, headers=dict(self.headers))
        found = connection.getresponse()
        body = found.read()
        if ".tar" in self.path or "/data/" in self.path:
            number = next(proxy.numbers)
            proxy.counts["requests"] += 1
            proxy.counts["bytes"] += len(body)
            if proxy.fail_every and number % proxy.fail_every == 0:
                proxy.counts["failed"] += 1
                self._answer(500, b"broken")
                return
            if proxy.cut_every and number % proxy.cut_every == 0:
                proxy.counts["cut"] += 1
                self._answer(found.status, body, dict(found.getheaders()), len(body) // 2)
                return
        self._answer(found.status, body, dict(found.getheaders()))

    def _answer(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date",
                                    "server"):  # fmt: skip
                self.send_header(name, value)
        length = (headers or {}).get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True


@contextmanager
def proxy_before(address: str) -> Iterator[Proxy]:
    with Proxy(address) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield proxy
        proxy.shutdown()


def environment(address: str, cache: Path) -> dict[str, str]:
    """What points at a server, and the kept indices at a folder."""
    return {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
        "AWS_ALLOW_HTTP": "true",
        "XDG_CACHE_HOME": str(cache),
    }


def use(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path) -> None:
    """Points this process at a server, and the kept indices at a folder."""
    for name, value in environment(address, cache).items():
        monkeypatch.setenv(name, value)


RANK = "tests.support.object_store:rank"


def rank_words(words: list[str], addresses: list[str], cache: Path) -> list[str]:
    """What :data:`RANK`, a target for ``Host``, gets: a command, and a server for each rank."""
    return [json.dumps([environment(address, cache) for address in addresses]), *words]


def rank(words: list[str]) -> int:
    """A command in a rank, which has its own server: the last one stands for all that follow."""
    from videomae_fast import cli

    servers = json.loads(words[0])
    os.environ.update(servers[min(int(os.environ["RANK"]), len(servers) - 1)])
    serve_workers()
    return cli.main(words[1:])
