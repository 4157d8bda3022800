"""Loader processes without their imports: their server is a fork, not a new interpreter.

A new one would import torch, in each process of a run, for longer than the run takes.
"""

from __future__ import annotations

import faulthandler
import os
import socket
from multiprocessing import forkserver
from typing import Any


def serve_workers() -> None:
    """Forks the server from here: before this process has threads, after its environment is set."""
    server: Any = forkserver._forkserver
    assert server._forkserver_pid is None, "there is one"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")  # to a name that no file has
        listener.listen()
        address = listener.getsockname()
        ends, alive = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(alive)
                faulthandler.disable()  # a process that crashes is to crash as others do
                forkserver.main(listener.detach(), ends, ())
            finally:
                os._exit(0)
        os.close(ends)
    server._forkserver_address, server._forkserver_alive_fd = address, alive
    server._forkserver_pid = pid
