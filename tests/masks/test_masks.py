"""Masks: counts, distributions, conventions, errors."""

from __future__ import annotations

import importlib
import itertools
import sys

import pytest
import torch

import videomae_fast.masks as room
from videomae_fast import Grid, Masks, MaskSpec
from videomae_fast.ops.mask_indices import running_cell_kept, running_cell_pattern

GRID = Grid(8, 14, 14)
GRIDS = [GRID, Grid(8, 16, 16), Grid(6, 4, 4), Grid(4, 5, 7), Grid(6, 5, 3), Grid(3, 3, 3)]
KINDS = list(
    itertools.product(
        ("tube", "random", "frame"),
        ("none", "running-cell", "random", "frame"),
        ("invisible", "all"),
        (False, True),
    )
)


def sample(batch: int, grid: Grid, spec: MaskSpec, seed: int = 0) -> Masks:
    return Masks.sample(batch, grid, spec, generator=torch.Generator().manual_seed(seed))


def test_official_counts():
    for spec, grid, numbers in (
        (MaskSpec(), GRID, (160, 784, 704)),
        (MaskSpec(), Grid(8, 16, 16), (208, 1024, 920)),
        (MaskSpec(decoder="none"), GRID, (160, 1408, 1408)),
        (MaskSpec(decoder_ratio=0.25), GRID, (160, 1176, 1056)),
        (MaskSpec(decoder_ratio=0.75), GRID, (160, 392, 352)),
        (MaskSpec(encoder="frame", encoder_ratio=0.875, decoder="none"), GRID, (196, 1372, 1372)),
        (MaskSpec(skip_seen=True), GRID, (160, 704, 704)),
    ):
        counts = spec.counts(grid)
        assert (counts.visible, counts.decoder, counts.loss) == numbers
        assert counts.decoder_fixed
        assert counts.loss_fixed
        masks = sample(3, grid, spec)
        assert masks.loss_weight is None
        assert masks.decoder_count is None


def test_running_cell_maps_are_the_official(golden):
    for ratio in ("0.25", "0.5", "0.75"):
        truth = golden("running_cell_maps")[f"running_cell_{ratio}"]
        kept = running_cell_kept(8, 14, 14, int(4 * float(ratio)), torch.arange(4))
        assert torch.equal(~kept.flatten(2), truth)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(("encoder", "decoder", "loss_over", "skip_seen"), KINDS)
def test_against_boolean_masks(grid, encoder, decoder, loss_over, skip_seen):
    """Every list is what the boolean masks say, in order, padded to a bound that is reached."""
    spec = MaskSpec(encoder, 0.6, decoder, 0.5, loss_over=loss_over, skip_seen=skip_seen)
    counts = spec.counts(grid)
    masks = sample(64, grid, spec)
    for tensor in (masks.visible, masks.decoder, masks.loss_slot, masks.loss_index):
        assert tensor.dtype == torch.int32
    unseen, undecoded = masks.to_bool()
    kept = ~undecoded
    assert (~unseen).sum(1).eq(counts.visible).all()
    assert masks.visible.shape[1] == counts.visible
    planes = unseen.reshape(64, grid.slots, grid.space)
    if encoder == "tube":
        assert (planes == planes[:, :1]).all()
    if encoder == "frame":
        assert (planes == planes[:, :, :1]).all()
    if decoder == "none":
        assert torch.equal(kept, unseen)
    if skip_seen:
        assert not (kept & ~unseen).any()
    assert int(kept.sum(1).max()) <= counts.decoder
    in_loss = kept if loss_over == "all" else kept & unseen
    assert int(in_loss.sum(1).max()) <= counts.loss
    if counts.loss_fixed:
        assert in_loss.sum(1).eq(counts.loss).all()
    for i in range(64):
        n = counts.decoder if masks.decoder_count is None else int(masks.decoder_count[i])
        assert masks.visible[i].tolist() == (~unseen[i]).nonzero().flatten().tolist()
        decoded = masks.decoder[i, :n].tolist()
        assert decoded == kept[i].nonzero().flatten().tolist()
        valid = torch.ones(counts.loss, dtype=torch.bool)
        if masks.loss_weight is not None:
            valid = masks.loss_weight[i] == 1
            assert (masks.loss_weight[i][~valid] == 0).all()
        truth = in_loss[i].nonzero().flatten().tolist()
        assert masks.loss_index[i][valid].tolist() == truth
        assert [decoded[slot] for slot in masks.loss_slot[i][valid].tolist()] == truth
        assert (masks.loss_slot[i] < max(n, 1)).all()


def test_bounds_are_tight_where_counts_vary():
    """With enough clips the largest count occurs: the static bound wastes nothing."""
    spec = MaskSpec(encoder_ratio=0.5)
    grid = Grid(6, 4, 4)
    assert not spec.counts(grid).loss_fixed
    masks = sample(4000, grid, spec)
    assert masks.loss_weight.sum(1).max() == spec.counts(grid).loss


def test_seeds_alone_decide():
    seeds = torch.arange(10, 16) * 1_000_003
    whole = Masks.from_seeds(seeds, GRID)
    for part in (slice(0, 2), slice(2, 6)):
        masks = Masks.from_seeds(seeds[part], GRID)
        for name in ("visible", "decoder", "loss_slot", "loss_index"):
            assert torch.equal(getattr(masks, name), getattr(whole, name)[part])
    again = sample(4, GRID, MaskSpec(), seed=5)
    assert torch.equal(again.visible, sample(4, GRID, MaskSpec(), seed=5).visible)
    assert not torch.equal(again.visible, sample(4, GRID, MaskSpec(), seed=6).visible)
    far = Masks.from_seeds(torch.tensor([1, 1 + 2**32]), GRID)
    assert not torch.equal(far.visible[0], far.visible[1])


def test_subsets_are_uniform():
    """Every position equally often, every pair too, and patterns independent of the tubes."""
    grid, draws = Grid(4, 3, 3), 20_000
    seeds = torch.arange(draws)  # neighbouring seeds must not be related
    masks = Masks.from_seeds(seeds, grid, MaskSpec(encoder_ratio=0.5))
    seen = ~masks.to_bool()[0].reshape(draws, 4, 9)[:, 0]
    k, n = 5, 9
    assert seen.sum(1).eq(k).all()
    share = seen.double().mean(0)
    sigma = (k / n * (1 - k / n) / draws) ** 0.5
    assert ((share - k / n).abs() < 5 * sigma).all()
    pairs = (seen.double().T @ seen.double()) / draws
    expected = k * (k - 1) / (n * (n - 1))
    off = ~torch.eye(n, dtype=torch.bool)
    assert ((pairs[off] - expected).abs() < 5 * (expected * (1 - expected) / draws) ** 0.5).all()
    pattern = running_cell_pattern(seeds)
    counts = torch.bincount(pattern, minlength=4)
    assert ((counts - draws / 4).abs() < 5 * (draws * 3 / 16) ** 0.5).all()
    joint = torch.stack([seen[pattern == p].double().mean(0) for p in range(4)])
    assert ((joint - k / n).abs() < 5 * sigma * 2).all()
    follows = (pattern[1:] == pattern[:-1]).double().mean()
    assert abs(float(follows) - 0.25) < 0.02


def test_official_convention_round_trip():
    masks = sample(5, GRID, MaskSpec())
    back = Masks.from_bool(*masks.to_bool(), grid=GRID)
    for name in ("visible", "decoder", "loss_slot", "loss_index"):
        assert torch.equal(getattr(masks, name), getattr(back, name))
    encoder, _ = masks.to_bool()
    none = Masks.from_bool(encoder.reshape(5, 8, 14, 14))
    assert torch.equal(none.decoder, none.loss_index)
    assert none.grid == GRID


def test_from_bool_refuses_what_cannot_be_batched():
    encoder, decoder = sample(2, GRID, MaskSpec()).to_bool()
    uneven = encoder.clone()
    uneven[0, int((~encoder[0]).nonzero()[0])] = True
    with pytest.raises(ValueError, match="the encoder sees; here from 159 to 160"):
        Masks.from_bool(uneven, decoder, grid=GRID)
    with pytest.raises(ValueError, match="nothing is in the loss"):
        Masks.from_bool(encoder, encoder, grid=GRID)
    with pytest.raises(ValueError, match="needs the grid"):
        Masks.from_bool(encoder)
    with pytest.raises(ValueError, match="1568 positions per clip, the grid 4"):
        Masks.from_bool(encoder, grid=Grid(1, 2, 2))


@pytest.mark.parametrize(
    ("spec", "grid", "match"),
    [
        ({"decoder_ratio": 0.6}, GRID, "0.25, 0.5 or 0.75, not 0.6"),
        ({"encoder_ratio": 1.0}, GRID, "not between 0 and 1"),
        ({"encoder_ratio": 0.0}, GRID, "not between 0 and 1"),
        ({"decoder_ratio": 0.0}, GRID, 'use decoder mask "none"'),
        ({"encoder": "cube"}, GRID, "none of tube, random, frame"),
        ({"decoder": "run_cell"}, GRID, "none of none, running-cell"),
        ({"loss_over": "visible"}, GRID, "none of invisible, all"),
        ({"encoder_ratio": 0.2}, Grid(8, 2, 2), "would mask 0 of 4 positions per slot"),
        ({"encoder": "frame", "encoder_ratio": 0.9}, Grid(1, 4, 4), "0 of 1 time slots"),
    ],
)
def test_impossible_masks_are_errors(spec, grid, match):
    with pytest.raises(ValueError, match=match):
        MaskSpec(**spec).counts(grid)


def test_clip_weights():
    masks = sample(3, GRID, MaskSpec()).weighted(torch.tensor([1, 0, 1]))
    assert masks.loss_weight.sum(1).tolist() == [704, 0, 704]
    uneven = sample(3, Grid(6, 4, 4), MaskSpec(encoder_ratio=0.5))
    halved = uneven.weighted(torch.tensor([0.5, 0.5, 0.0]))
    assert torch.equal(halved.loss_weight[:2], uneven.loss_weight[:2] / 2)


def test_counts_do_not_depend_on_the_default_device():
    with torch.device("meta"):
        assert MaskSpec(encoder_ratio=0.51).counts(GRID).loss_fixed


def test_the_former_name_serves_with_a_warning(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "videomae_fast.masking", raising=False)
    with pytest.warns(DeprecationWarning, match=r"masking is now videomae_fast\.masks"):
        former = importlib.import_module("videomae_fast.masking")
    assert former.__all__ == room.__all__
    assert all(getattr(former, name) is getattr(room, name) for name in room.__all__)
