"""Ctrl-C in processes that a test starts."""

from __future__ import annotations

import signal


def heed_interrupts() -> None:
    """As ``preexec_fn``: tests that ignore Ctrl-C themselves (nohup) would hand that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
