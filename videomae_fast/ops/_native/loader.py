"""Finds and loads the compiled CPU library, or says why there is none.

The library is optional: the package imports and computes without it. ``VIDEOMAE_FAST_NATIVE=0``
switches it off for a process (and, at build time, leaves it out of the installation).
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from importlib.resources import files
from pathlib import Path

from videomae_fast.ops._native.threads import share_threads

# The C interface that the wrappers here speak: VMF_INTERFACE_VERSION in csrc/CMakeLists.txt.
INTERFACE = 11

SWITCH = "VIDEOMAE_FAST_NATIVE"
REBUILD = "rebuild it with: pip install --force-reinstall --no-deps . (in the source folder)"


def _file_name() -> str:
    return "libvideomae_fast_cpu" + (".dylib" if sys.platform == "darwin" else ".so")


def library_path() -> Path | None:
    """Where the installed library is, or None; the same for a wheel, an sdist and an editable."""
    found = files("videomae_fast") / "lib" / _file_name()
    return Path(str(found)) if found.is_file() else None


@cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    if os.environ.get(SWITCH, "1") == "0":
        return None, f"the native library is switched off by {SWITCH}=0"
    path = library_path()
    if path is None:
        return None, f"the native library ({_file_name()}) is not installed; {REBUILD}"
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        return None, f"the native library does not load ({error}); {REBUILD}"
    try:
        version = int(loaded.vmf_interface_version())
    except AttributeError:
        return None, f"{path} is not videomae-fast's native library; {REBUILD}"
    if version != INTERFACE:
        return None, (
            f"the native library is stale: it has C interface {version}, this package needs "
            f"{INTERFACE}; {REBUILD}"
        )
    loaded.vmf_instruction_set.restype = ctypes.c_char_p
    share_threads(loaded)
    return loaded, ""


def library() -> ctypes.CDLL | None:
    """The loaded library, or None where it can't be used (`why_missing` says why)."""
    return _load()[0]


def why_missing() -> str:
    """Why `library` is None, with the remedy; empty when the library is there."""
    return _load()[1]


def instruction_set() -> str | None:
    """The instruction set that the library uses on this machine ("avx512", "avx2", ...)."""
    loaded = library()
    return None if loaded is None else _instruction_set(loaded)


@cache
def _instruction_set(loaded: ctypes.CDLL) -> str:
    return str(loaded.vmf_instruction_set().decode())
