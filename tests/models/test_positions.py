"""Position tables for other sizes than the trained one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from videomae_fast import Grid, MAEConfig, VideoClassifier
from videomae_fast.models.positions import interpolate_table, sinusoid_table

TRAINED = Grid(4, 3, 5)


def _linear(grid: Grid) -> torch.Tensor:
    """A table whose columns are the relative places of its positions: slot, row, column."""
    axes = [(torch.arange(n) + 0.5) / n for n in (grid.slots, grid.height, grid.width)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(-1, 3)


def test_the_same_grid_is_left_alone() -> None:
    table = torch.randn(TRAINED.tokens, 6)
    assert interpolate_table(table, TRAINED, Grid(4, 3, 5)) is table


@pytest.mark.parametrize("grid", [Grid(8, 3, 5), Grid(4, 6, 5), Grid(2, 9, 7), Grid(1, 1, 1)])
def test_places_stay_where_they_are(grid: Grid) -> None:
    """Away from the border, a table of places gives the new grid's places."""
    found = interpolate_table(_linear(TRAINED), TRAINED, grid).view(
        grid.slots, grid.height, grid.width, 3
    )
    exact = _linear(grid).view(found.shape)
    inner = slice(grid.slots // 3, max(1, grid.slots - grid.slots // 3))
    torch.testing.assert_close(found[inner, ..., 0], exact[inner, ..., 0], rtol=0, atol=1e-5)
    row, column = grid.height // 2, grid.width // 2
    torch.testing.assert_close(found[0, row, column], exact[0, row, column], rtol=0, atol=0.14)


def test_space_is_bicubic_within_each_slot() -> None:
    table = torch.randn(TRAINED.tokens, 6)
    found = interpolate_table(table, TRAINED, Grid(4, 6, 8)).view(4, 6, 8, 6)
    for slot in range(4):
        plane = table.view(4, 3, 5, 6)[slot].permute(2, 0, 1)[None]
        exact = F.interpolate(plane, (6, 8), mode="bicubic", align_corners=False)[0]
        torch.testing.assert_close(found[slot], exact.permute(1, 2, 0))


def test_a_table_in_bf16_is_interpolated_in_fp32() -> None:
    table = torch.randn(TRAINED.tokens, 6, dtype=torch.bfloat16)
    found = interpolate_table(table, TRAINED, Grid(4, 6, 8))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, interpolate_table(table.float(), TRAINED, Grid(4, 6, 8)))


def _features(**options: object) -> torch.Tensor:
    torch.manual_seed(0)
    config = MAEConfig.from_size(
        "small", image_size=32, frames=4, width=24, depth=1, heads=2,
        learned_positions=options.pop("learned", False),
    )  # fmt: skip
    model = VideoClassifier(config, 3, **options)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    clips = torch.randint(0, 256, (1, 8, 48, 64, 3), dtype=torch.uint8, generator=generator)
    return model.features(clips)


def test_the_official_table_is_a_named_choice() -> None:
    apart = _features() - _features(other_grids="recomputed")
    assert apart.abs().max() > 1e-3
    with pytest.raises(ValueError, match="interpolated or recomputed"):
        _features(other_grids="neither")


def test_learned_positions_are_interpolated_too() -> None:
    assert _features(learned=True).isfinite().all()
    with pytest.raises(ValueError, match="but not recomputed"):
        _features(learned=True, other_grids="recomputed")


def test_other_frame_counts_keep_the_trained_places() -> None:
    """Twice the frames: every second pair of slots surrounds a trained slot's place."""
    table = sinusoid_table(TRAINED.tokens, 6)
    twice = interpolate_table(table, TRAINED, Grid(8, 3, 5)).view(4, 2, 15, 6)
    inner = twice[1:3].mean(1) - table.view(4, 15, 6)[1:3]
    recomputed = sinusoid_table(120, 6).view(4, 2, 15, 6)[1:3].mean(1) - table.view(4, 15, 6)[1:3]
    assert inner.abs().mean() < 0.5 * recomputed.abs().mean()
