"""mask_indices: the kernel equals the reference bit for bit."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch

from videomae_fast.masks import Grid, MaskSpec
from videomae_fast.ops.mask_indices import ENCODER_KINDS, mask_indices

triton = pytest.importorskip("triton")
tl = triton.language
pytestmark = pytest.mark.usefixtures("interpreted", "poisoned")
SEEDS = torch.tensor([0, 1, -1, 2**62 + 12345, -(2**63), 0x7FFF_FFFF_FFFF_FFFF])


def arguments(spec: MaskSpec, grid: Grid) -> dict[str, Any]:
    counts = spec.counts(grid)
    return {
        "slots": grid.slots,
        "height": grid.height,
        "width": grid.width,
        "encoder": spec.encoder,
        "encoder_masked": spec.encoder_masked(grid),
        "decoder": spec.decoder,
        "decoder_masked": spec.decoder_masked(grid),
        "loss_over_all": spec.loss_over == "all",
        "skip_seen": spec.skip_seen,
        "visible_tokens": counts.visible,
        "decoder_tokens": counts.decoder,
        "loss_tokens": counts.loss,
    }


def differing(seeds: torch.Tensor, device: str, **settings: Any) -> list[str]:
    """The outputs in which kernel and reference differ."""
    ours = mask_indices(seeds.to(device), **settings, impl="triton")
    theirs = mask_indices(seeds, **settings, impl="reference")
    names = ("visible", "decoder", "decoder_count", "loss_slot", "loss_weight")
    found = []
    for name, our, their in zip(names, ours, theirs, strict=True):
        assert our.dtype == their.dtype
        if not torch.equal(our.cpu(), their):
            found.append(name)
    return found


@pytest.mark.parametrize("decoder", ["running-cell", "none", "random", "frame"])
@pytest.mark.parametrize("encoder", ENCODER_KINDS)
def test_all_kinds(encoder: Any, decoder: Any, device: str) -> None:
    spec = MaskSpec(encoder, 0.7, decoder, 0.5)
    assert differing(SEEDS, device, **arguments(spec, Grid(4, 5, 3))) == []


@pytest.mark.parametrize("grid", [Grid(8, 14, 14), Grid(3, 5, 7), Grid(1, 2, 2)], ids=str)
@pytest.mark.parametrize("over", ["invisible", "all"])
@pytest.mark.parametrize("skip_seen", [False, True])
def test_options_and_grids(grid: Grid, over: Any, skip_seen: bool, device: str) -> None:
    """Odd grids and slot counts: lists that end in padding; one slot; the official size."""
    spec = MaskSpec("tube", 0.5, "running-cell", 0.25, over, skip_seen)
    assert differing(SEEDS[2:], device, **arguments(spec, grid)) == []


def four_values(stream_key, position):
    """Keys with many ties; becomes part of the kernel."""
    return (position * 7 + stream_key.to(tl.uint32)) % 4


def made_anew(monkeypatch: pytest.MonkeyPatch, kernel: Any, *names: str) -> None:
    """Functions that see a changed global: compiled ones refuse to run with another value."""
    for name in names:
        monkeypatch.setattr(kernel, name, triton.jit(getattr(kernel, name).fn))


def test_ties_are_broken_by_position(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """With keys of few values, equal keys decide: the first positions are taken."""
    from videomae_fast.kernels import mask_indices as kernel

    op = import_module("videomae_fast.ops.mask_indices")  # the package shows the function

    def reference_values(seeds: torch.Tensor, stream: int, n: int) -> torch.Tensor:
        position = torch.arange(n)
        return (position * 7 + op.stream_key(seeds, stream)[:, None]) % 2**32 % 4

    monkeypatch.setattr(kernel, "_position_keys", triton.jit(four_values))
    made_anew(monkeypatch, kernel, "_chosen", "_chosen_tokens", "mask_indices_kernel")
    monkeypatch.setattr(op, "position_keys", reference_values)
    for encoder in ENCODER_KINDS:
        settings = arguments(MaskSpec(encoder, 0.6, "none"), Grid(5, 3, 4))
        assert differing(SEEDS, device, **settings) == []


def test_nothing_chosen_and_all_chosen(device: str) -> None:
    """Counts that a MaskSpec would refuse."""
    settings = arguments(MaskSpec("random", 0.5, "none"), Grid(2, 2, 3))
    for masked, visible in ((0, 12), (12, 0)):
        sizes = {
            "visible_tokens": visible,
            "decoder_tokens": max(1, 12 - visible),
            "loss_tokens": max(1, 12 - visible),
        }
        assert differing(SEEDS, device, **{**settings, "encoder_masked": masked, **sizes}) == []


def test_no_clips_and_strided_seeds(device: str) -> None:
    settings = arguments(MaskSpec(), Grid(2, 4, 4))
    assert differing(SEEDS[:0], device, **settings) == []
    assert differing(SEEDS[::2], device, **settings) == []


def test_another_stream_is_noticed(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """Negative control: the comparison sees a kernel that draws from another stream."""
    from videomae_fast.kernels import mask_indices as kernel

    monkeypatch.setattr(kernel, "_ENCODER_STREAM", tl.constexpr(0x51ED270C))
    made_anew(monkeypatch, kernel, "mask_indices_kernel")
    assert "visible" in differing(SEEDS, device, **arguments(MaskSpec(), Grid(4, 6, 6)))
