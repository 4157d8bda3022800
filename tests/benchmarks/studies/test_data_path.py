"""What a loader makes of a clip, the official way and ours."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.common.workload import Workload
from benchmarks.official.masks import running_cell_maps
from benchmarks.official.step import normalized_images
from benchmarks.studies.data_path import OfficialPath, OurPath, data_path
from videomae_fast import MAEConfig
from videomae_fast.masks import Grid, Masks
from videomae_fast.ops.mask_indices import running_cell_kept

CONFIG = MAEConfig(image_size=64, frames=8, width=16, depth=1, heads=1, decoder_width=16,
                   decoder_heads=1)  # fmt: skip


@pytest.mark.parametrize("masked", [1, 2, 3])
def test_the_four_patterns_are_the_librarys(masked):
    grid = Grid(8, 4, 6)
    maps = running_cell_maps(grid, masked).astype(bool)
    kept = running_cell_kept(8, 4, 6, masked, torch.arange(4)).flatten(2).numpy()
    assert {m.tobytes() for m in ~maps} == {k.tobytes() for k in kept}
    with pytest.raises(ValueError, match="even grid"):
        running_cell_maps(Grid(8, 5, 6), masked)


def test_what_the_official_way_hands_over():
    workload = Workload(CONFIG, 3)
    images, encoder, decoder = OfficialPath(workload).batch(list(workload.frames))
    torch.testing.assert_close(images, normalized_images(workload.frames))
    masks = Masks.from_bool(encoder, decoder, grid=CONFIG.grid)  # as many in each clip
    counts = workload.spec("dual").counts(CONFIG.grid)
    assert masks.visible.shape[1] == counts.visible
    assert masks.loss_index.shape[1] == counts.loss
    tube = encoder.view(3, CONFIG.grid.slots, -1)
    assert (tube == tube[:, :1]).all()


def test_what_ours_hands_over():
    workload = Workload(CONFIG, 3)
    frames, seeds = OurPath(workload).batch(list(workload.frames))
    assert torch.equal(frames, workload.frames)
    assert seeds.dtype == torch.int64
    assert len(np.unique(seeds.numpy())) == 3


def test_both_are_timed():
    workload = Workload(CONFIG, 2)
    threads = torch.get_num_threads()
    found = data_path(workload, 3)
    assert torch.get_num_threads() == threads
    clip = workload.frames[0].numel()
    assert found["official"]["bytes_per_clip"] == 4 * clip + 2 * CONFIG.grid.tokens
    assert found["ours"]["bytes_per_clip"] == clip + 8
    for row in found.values():
        assert row["seconds_per_clip"]["count"] == 3
        assert row["seconds_per_clip"]["median"] > 0
