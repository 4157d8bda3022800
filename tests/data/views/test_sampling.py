from __future__ import annotations

import json
from pathlib import Path

import pytest

from videomae_fast.data import frame_ids, possible_starts

GOLDEN = Path(__file__).parents[2] / "golden" / "frame_ids.json"


def test_golden() -> None:
    cases = json.loads(GOLDEN.read_text())
    assert len(cases) > 100
    for case in cases:
        duration, frames, stride = case["duration"], case["frames"], case["stride"]
        assert possible_starts(duration, frames, stride) == case["possible_starts"]
        assert frame_ids(duration, case["start"], frames, stride).tolist() == case["ids"]


def test_the_rule_step_by_step() -> None:
    """The closed form against the rule as one says it: move on while it stays inside."""
    for duration in range(1, 40):
        for stride in (1, 2, 3, 4, 7):
            for start in range(duration):
                place, expected = start + 1, []
                for _ in range(16):
                    expected.append(place - 1)
                    place += stride if place + stride < duration else 0
                assert frame_ids(duration, start, 16, stride).tolist() == expected


@pytest.mark.parametrize(
    ("duration", "start", "frames", "stride"),
    [(0, 0, 16, 4), (10, 10, 16, 4), (10, -1, 16, 4), (10, 0, 0, 4), (10, 0, 16, 0)],
)
def test_impossible(duration: int, start: int, frames: int, stride: int) -> None:
    with pytest.raises(ValueError, match=r"frames|start"):
        frame_ids(duration, start, frames, stride)
