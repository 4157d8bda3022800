"""Ctrl-C in processes that a test starts."""

from __future__ import annotations

import signal

from tests.support.forked_server import serve_workers

COMMAND = "tests.support.interrupts:command"
"""A target for ``Host``: the command line, which heeds Ctrl-C."""


def heed_interrupts() -> None:
    """As ``preexec_fn``: tests that ignore Ctrl-C themselves (nohup) would hand that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def command(words: list[str]) -> int:
    """See :data:`COMMAND`."""
    from videomae_fast.cli import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    serve_workers()
    return main(words)
