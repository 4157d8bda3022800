"""One file of csrc/ as a library of its own, as another processor would run it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from videomae_fast.ops._native import calls

CSRC = Path(__file__).parents[2] / "csrc"


def without_levels(name: str, levels: Sequence[str], folder: Path, *options: str) -> ctypes.CDLL:
    """`name` compiled for a processor that lacks these x86-64 levels; options: for g++."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ to compile with")
    for path in (*CSRC.glob("*.h"), CSRC / "parallel.cpp"):
        text = path.read_text()
        for level in levels:  # clones of functions
            text = text.replace(f', "arch={level}"', "")
        (folder / path.name).write_text(text)
    source = (CSRC / name).read_text()
    for level in levels:  # choices at run time
        asked = f'__builtin_cpu_supports("{level}")'
        assert asked in source or "__builtin_cpu_supports" not in source
        source = source.replace(asked, "false")
    (folder / name).write_text(source)
    usual = ["-std=c++20", "-O3", "-fopenmp-simd", "-ffp-contract=fast", "-fno-trapping-math"]
    command = [
        compiler,
        *usual,
        *options,
        "-shared",
        "-fPIC",
        "-DVMF_HAVE_CLONES",
        "-DVMF_HAVE_AVX512",
    ]
    command += [name, "parallel.cpp"]
    built = subprocess.run(
        [*command, "-o", "library.so"], cwd=folder, capture_output=True, text=True, check=False
    )
    if "arch=" in built.stderr:
        pytest.skip("this compiler knows no x86-64 levels")
    assert built.returncode == 0, built.stderr
    return ctypes.CDLL(str(folder / "library.so"))


@contextmanager
def in_place_of_ours(library: ctypes.CDLL) -> Iterator[None]:
    """The native ops call this library."""
    with pytest.MonkeyPatch.context() as patch:
        calls._function.cache_clear()
        patch.setattr(calls, "library", lambda: library)
        try:
            yield
        finally:
            calls._function.cache_clear()
