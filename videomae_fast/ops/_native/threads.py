"""Whose threads compute: torch's where that is safe, else the library's (csrc/parallel.cpp)."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

# Flag of a Linux process that was forked and has not called exec since (PF_FORKNOEXEC).
_FORKED = 0x40


def is_fork() -> bool:
    """Whether this process may be a fork, in which torch's threads may not exist any more.

    A fork that comes later is noticed by the C++ side.
    """
    try:
        # The name, in brackets, may hold anything; flags are the seventh field behind it.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return bool(int(fields[6]) & _FORKED)
    except (OSError, ValueError, IndexError):
        return True


def openmp_of_torch() -> tuple[int | None, str]:
    """GOMP_parallel's address in the OpenMP runtime that torch uses, or None; and why not."""
    if is_fork():
        return None, "this process is a fork, or not known to be none"
    if not torch.backends.openmp.is_available():  # type: ignore[no-untyped-call]
        return None, "torch is built without OpenMP"
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        function = ctypes.CDLL(str(path)).GOMP_parallel  # of what that library is linked with
    except (OSError, AttributeError) as error:
        return None, str(error)
    return ctypes.cast(function, ctypes.c_void_p).value, ""


def share_threads(library: ctypes.CDLL) -> None:
    """Has the library compute with torch's threads, where that is possible."""
    library.vmf_use_openmp.argtypes = [ctypes.c_void_p]
    library.vmf_use_openmp.restype = None
    library.vmf_use_openmp(openmp_of_torch()[0])
