"""Merged label spaces: names, duplicates, conflicts, leaks."""

from __future__ import annotations

import pytest

from videomae_fast.data.errors import ListError
from videomae_fast.data.labels.merging import LabelSource, merge_labels, video_id

A, B, C = "aaaaaaaaaa1", "bbbbbbbbbb2", "cccccccccc3"


def test_a_video_is_told_by_its_youtube_id() -> None:
    assert video_id(f"k400/train/{A}_000010_000020.mp4") == A
    assert video_id(f"{A}.mp4") == A
    assert video_id("some/own video.v2.mp4") == "some/own video.v2.mp4"
    assert video_id("some/own video.v2.mp4", "name") == "own video.v2"
    assert video_id(f"{A}_10_20.mp4") == f"{A}_10_20.mp4"
    assert video_id(f"k/{A}.mp4", "path") == f"k/{A}.mp4"


def test_names_then_videos_are_unified() -> None:
    merged = merge_labels(
        [
            LabelSource("400", "train", [(f"4/{A}_000001_000011.mp4", "hugging"), ("x.mp4", "y")]),
            LabelSource("600", "train", [(f"6/{A}.mp4", "hugging (not baby)")]),
            LabelSource("400", "validation", [(f"v/{B}.mp4", "y")]),
            LabelSource("700", "train", [(f"7/{B}.mp4", "y"), (f"7/{C}.mp4", "z")]),
        ],
        other_names={"hugging": "hugging (not baby)"},
    )
    assert merged.names == ["hugging (not baby)", "y", "z"]
    assert merged.train == [(f"4/{A}_000001_000011.mp4", 0), ("x.mp4", 1), (f"7/{C}.mp4", 2)]
    assert merged.validation == [(f"v/{B}.mp4", 1)]
    assert merged.duplicates == [(f"6/{A}.mp4", f"4/{A}_000001_000011.mp4")]
    assert merged.leaks == [(f"7/{B}.mp4", f"v/{B}.mp4")]
    assert merged.conflicts == []
    assert merged.renamed == {("hugging", "hugging (not baby)"): 1}
    report = merged.report()
    assert "3 classes, 3 videos for training, 1 for validation" in report
    assert "1 videos left training because validation has them too" in report


def test_conflicts_are_told_and_the_first_is_taken() -> None:
    merged = merge_labels(
        [
            LabelSource("a", "train", [(f"a/{A}.mp4", "x")]),
            LabelSource("b", "train", [(f"b/{A}.mp4", "y")]),
        ]
    )
    assert merged.train == [(f"a/{A}.mp4", 0)]
    assert merged.conflicts == [(A, [(f"a/{A}.mp4", "x"), (f"b/{A}.mp4", "y")])]
    assert f'"x" (a/{A}.mp4), "y" (b/{A}.mp4)' in merged.report()


def test_a_fixed_name_is_a_class_of_its_own() -> None:
    source = LabelSource("a", "train", [("p.mp4", "throwing ball"), ("q.mp4", "hugging")])
    other = {"throwing ball": "throwing", "hugging": "hug"}
    names = ["throwing ball", "throwing", "hug"]
    merged = merge_labels([source], names=names, other_names=other)
    assert merged.train == [("p.mp4", 0), ("q.mp4", 2)]
    assert 'warning: 1 classes have no video for training: "throwing"' in merged.report()


def test_fixed_names_refuse_others() -> None:
    source = LabelSource("a", "train", [("p.mp4", "air druming")])
    with pytest.raises(ListError, match=r'"air druming" .near: "air drumming".'):
        merge_labels([source], names=["abseiling", "air drumming"])
    with pytest.raises(ListError, match="the same name: b"):
        merge_labels([source], names=["air druming", "b", "b"])
    with pytest.raises(ListError, match="no list"):
        merge_labels([])
