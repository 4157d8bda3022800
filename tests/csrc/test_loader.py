"""Finding and refusing the compiled library."""

from __future__ import annotations

import ctypes.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support import library
from tests.support.processes import printed
from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import _native
from videomae_fast.ops._native import calls, loader


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    def clear() -> None:
        loader._load.cache_clear()
        calls._function.cache_clear()

    clear()
    yield
    clear()


def test_it_says_what_it_uses() -> None:
    assert _native.why_missing() == ""
    path = _native.library_path()
    assert path is not None
    assert path.is_file()
    assert _native.instruction_set()


def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEOMAE_FAST_NATIVE", "0")
    assert _native.library() is None
    assert "switched off by VIDEOMAE_FAST_NATIVE=0" in _native.why_missing()
    assert _native.instruction_set() is None
    with pytest.raises(BackendUnavailableError, match="switched off"):
        library.bias_gelu(torch.ones(1, 1), None)


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "library_path", lambda: None)
    assert "is not installed" in _native.why_missing()


def test_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "INTERFACE", loader.INTERFACE + 1)
    assert _native.library() is None
    assert "is stale" in _native.why_missing()
    assert "pip install" in _native.why_missing()


def test_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "lib.so"
    broken.write_text("no library")
    monkeypatch.setattr(loader, "library_path", lambda: broken)
    assert _native.library() is None
    assert "does not load" in _native.why_missing()


def test_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    other = ctypes.util.find_library("m")
    if other is None:
        pytest.skip("no math library to be found by name")
    monkeypatch.setattr(loader, "library_path", lambda: other)
    assert _native.library() is None
    assert "is not videomae-fast's" in _native.why_missing()


def test_a_forked_process_can_use_it() -> None:
    """Data workers fork; no thread of ours may be waited for there.

    In an interpreter of its own: forking one in which torch has started threads may hang.
    """
    printed(_FORK)


_FORK = """
import os, torch
from tests.support import library
torch.set_num_threads(2)
x = torch.arange(256_000.0).reshape(4000, 64) / 1e5
parents = library.bias_gelu(x, None).numpy()
child = os.fork()
if child == 0:
    childs = library.bias_gelu(x, None).numpy()
    os._exit(0 if (childs == parents).all() else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
