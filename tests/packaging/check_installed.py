"""Checks an installed videomae-fast from outside its tree. Run by .ci/run in an empty environment.

With --native the compiled library must be there and serve; without, its absence must be explained
and the references must serve.
"""

from __future__ import annotations

import argparse
import importlib.util
import sysconfig
from pathlib import Path

import torch

import videomae_fast
from videomae_fast.ops import _native
from videomae_fast.ops.patch_gather import patch_gather
from videomae_fast.recipes.catalogue import names
from videomae_fast.recipes.load import load
from videomae_fast.recipes.plan import read_plan
from videomae_fast.recipes.schema import PretrainConfig


def check_place() -> None:
    site = Path(sysconfig.get_paths()["platlib"]).resolve()
    place = Path(str(videomae_fast.__file__)).resolve()
    assert place.is_relative_to(site), f"videomae_fast was imported from {place}, not from {site}"


def check_kernels() -> None:
    """The kernels folder came along, as a part of the package and not at top level."""
    package = importlib.util.find_spec("videomae_fast.kernels")
    assert package is not None, "videomae_fast.kernels is not installed"
    assert package.submodule_search_locations
    assert importlib.util.find_spec("kernels") is None, "kernels was installed at top level"


def check_recipes() -> None:
    """The recipes' files came along, and are read."""
    found = names(PretrainConfig.task)
    assert "vit_b_hybrid" in found, found
    for name in found:
        assert load(PretrainConfig, name).optim.videos_per_step > 0
    assert len(read_plan("vit_g_progressive").stages) > 2


def check_native(expected: bool) -> None:
    assert (_native.library() is not None) == expected, _native.why_missing()
    assert bool(_native.why_missing()) != expected
    frames = torch.randint(0, 256, (1, 2, 32, 32, 3), dtype=torch.uint8)
    index = torch.tensor([[3, 0]], dtype=torch.int32)
    reference = patch_gather(frames, index, impl="reference")
    assert torch.equal(patch_gather(frames, index, impl="auto"), reference)
    if expected:
        assert torch.equal(patch_gather(frames, index, impl="native"), reference)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--native", action="store_true", help="the library must be there")
    expected = parser.parse_args().native
    check_place()
    check_kernels()
    check_recipes()
    check_native(expected)
    state = f"{_native.instruction_set()}" if expected else _native.why_missing()
    print(f"videomae_fast from {Path(str(videomae_fast.__file__)).parent.name}: native: {state}")


if __name__ == "__main__":
    main()
