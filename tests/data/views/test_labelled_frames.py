"""Frames of labelled clips against the official code's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videomae_fast.data.views.labelled_frames import (
    dense_draws,
    dense_ids,
    dense_test_ids,
    sparse_draws,
    sparse_ids,
    sparse_test_ids,
)

GOLDEN = json.loads(
    (Path(__file__).parents[2] / "golden" / "downstream_frame_ids.json").read_text()
)


def _segments(case: dict[str, Any]) -> int:
    return len(case["test_clips"])


@pytest.mark.parametrize("case", GOLDEN["dense"], ids=lambda c: f"{c['duration']}-{c['rate']}")
def test_dense_clips_are_the_official_ones(case: dict[str, Any]) -> None:
    shape = (case["duration"], case["clip_len"], case["rate"])
    for clip in case["train"]:
        draw = 0
        for drawn in clip["drawn_end"]:
            assert drawn["high"] - drawn["low"] == dense_draws(*shape)
            draw = drawn["value"] - drawn["low"]
        assert dense_ids(*shape, draw).tolist() == clip["ids"]
    assert dense_ids(*shape).tolist() == case["validation"]
    assert dense_test_ids(*shape, _segments(case)).tolist() == case["test_clips"]


@pytest.mark.parametrize("case", GOLDEN["raw"], ids=lambda c: str(c["total"]))
def test_sparse_clips_are_those_of_official_frame_folders(case: dict[str, Any]) -> None:
    shape = (case["total"], case["num_segment"])
    first = case["start_idx"]
    for clip in case["train"]:
        draws = None
        for drawn in clip["drawn"]:
            assert drawn["high"] - drawn["low"] == sparse_draws(*shape)
            draws = drawn["value"]
        assert (sparse_ids(*shape, draws) + first).tolist() == clip["ids"]
    assert (sparse_ids(*shape) + first).tolist() == case["validation"]
    clips = sparse_test_ids(*shape, _segments(case)) + first
    assert clips.tolist() == case["test_clips"]


@pytest.mark.parametrize("case", GOLDEN["sparse_video"], ids=lambda c: str(c["duration"]))
def test_sparse_test_clips_of_videos_are_the_official_ones(case: dict[str, Any]) -> None:
    clips = sparse_test_ids(case["duration"], case["num_segment"], _segments(case))
    assert clips.tolist() == case["test_clips"]


def test_every_clip_lies_in_its_video() -> None:
    for duration in range(1, 140):
        for frames, stride in ((1, 1), (4, 3), (16, 2), (16, 4)):
            clips = [
                dense_ids(duration, frames, stride),
                dense_ids(duration, frames, stride, dense_draws(duration, frames, stride) - 1),
                sparse_ids(duration, frames),
                sparse_ids(duration, frames, [sparse_draws(duration, frames) - 1] * frames),
                *dense_test_ids(duration, frames, stride, 1),
                *dense_test_ids(duration, frames, stride, 7),
                *sparse_test_ids(duration, frames, 1),
                *sparse_test_ids(duration, frames, 3),
            ]
            for ids in clips:
                assert ids.shape == (frames,)
                assert ids.min() >= 0
                assert ids.max() < duration
                assert (np.diff(ids) >= 0).all()


def test_one_segment_is_the_middle() -> None:
    assert dense_test_ids(100, 4, 2, 1).tolist() == [[46, 48, 50, 52]]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: dense_ids(0, 16, 4), "duration"),
        (lambda: dense_ids(9, 16, 0), "stride"),
        (lambda: dense_ids(100, 16, 4, 36), "0..35"),
        (lambda: dense_test_ids(9, 16, 4, 0), "segments"),
        (lambda: sparse_ids(40, 16, [2] * 16), "0..1"),
        (lambda: sparse_ids(40, 16, [0]), "16 in"),
        (lambda: sparse_test_ids(9, 0, 2), "frames"),
    ],
)
def test_impossible_numbers_are_named(call: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        call()
