"""Views that are drawn once, whichever epoch and order they come in."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.support.labelled import tiny_config
from videomae_fast.data.fixed_views import FixedViews
from videomae_fast.data.loader.pipeline import StepDraws, clip_loader, once_loader
from videomae_fast.data.order import Draw
from videomae_fast.data.views.rule import WORDS_PER_SAMPLE
from videomae_fast.recipes import Source, changed
from videomae_fast.tasks.labelled import training_clips


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    from tests.support.labelled import write_set

    return write_set(tmp_path_factory.mktemp("views"), 1, 1)


@pytest.fixture
def views(lists: tuple[Path, Path]) -> FixedViews:
    """Two views of each of eight videos in two lists."""
    config = tiny_config(lists[0], augment__operations=2, augment__erase=0.5)
    both = tuple(Source(each, format="labels") for each in lists)
    made = training_clips(changed(config, {"data.lists": both}), partial(FixedViews, views=2))
    assert isinstance(made, FixedViews)
    return made


def test_rows_and_draws_are_each_others(views: FixedViews) -> None:
    assert views.entries == 8
    assert [views.row(views.draw_of(row)) for row in range(16)] == list(range(16))
    assert [views.draw_of(row).source for row in (3, 4, 11, 12)] == [0, 1, 0, 1]


def test_every_epoch_has_the_clips_that_were_computed_once(views: FixedViews) -> None:
    every = once_loader(views, [views.draw_of(row) for row in range(16)], videos=16)
    once = next(iter(every)).frames.unflatten(0, (16, 2))
    assert len({tuple(clip.flatten()[::97].tolist()) for clip in once.flatten(0, 1)}) == 32
    found = _rows_of_training(views, steps=8)
    assert sorted(row for row, _ in found[:8]) == list(range(8)), "epoch 0 is view 0"
    assert sorted(row for row, _ in found[8:16]) == list(range(8, 16)), "epoch 1 is view 1"
    assert [row for row, _ in found[16:24]] != [row for row, _ in found[:8]], "another order"
    for row, clips in found:
        assert torch.equal(clips, once[row])


def test_drop_path_is_drawn_anew_in_each_epoch(views: FixedViews) -> None:
    first, again = (views.request(Draw(0, epoch, 5, 0, 1)) for epoch in (0, 2))
    assert not {*first.mask_seeds} & {*again.mask_seeds}
    for word, (one, other) in enumerate(zip(first.words, again.words, strict=True)):
        assert (one == other) is (word % WORDS_PER_SAMPLE != 3)


def _rows_of_training(views: FixedViews, steps: int) -> list[tuple[int, torch.Tensor]]:
    draws = StepDraws(views, 4, 1, range(0), 0, 1)
    batches: Iterator = clip_loader(views, videos_per_step=4, total_steps=steps)
    found = []
    for step, batch in enumerate(batches):
        clips = batch.frames.unflatten(0, (4, 2))
        found += list(zip(map(views.row, draws.part(step, 0)), clips, strict=True))
    return found


def test_no_view_is_refused(lists: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match=r"views \(0\)"):
        training_clips(tiny_config(lists[0]), partial(FixedViews, views=0))
