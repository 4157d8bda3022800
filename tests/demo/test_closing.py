"""What the demo says at its end of a difference that one run can or can't show."""

from __future__ import annotations

import pytest

from videomae_fast.demo.closing import verdict


@pytest.mark.parametrize(
    ("tuned", "scratch", "told"),
    [
        (0.70, 0.60, "in this run pre-training paid"),
        (0.60, 0.70, "in this run pre-training did not pay"),
        (0.69, 0.61, "less than 8 points apart, so one run does not tell"),
        (0.61, 0.69, "less than 8 points apart, so one run does not tell"),
    ],
)
def test_one_run_tells_no_more_than_its_videos_do(tuned: float, scratch: float, told: str) -> None:
    assert verdict(tuned, scratch, 256) == told
