"""Which frames windows have, and that each frame is made once."""

from __future__ import annotations

import pytest
import torch

from tests.support.downstream import downstream
from videomae_fast.evaluation.windows import PRESETS, WindowRule, sliding

RULES = [
    WindowRule(stride=4),
    WindowRule(stride=16),
    WindowRule(stride=3, length=4, frame_stride=2),
    WindowRule(stride=20, length=8, frame_stride=2),
    WindowRule(stride=1, length=2, frame_stride=5),
]


def test_starts_are_the_official_ones_at_every_length() -> None:
    told = downstream("tad").info["starts_by_length"]
    assert len(told) > 10
    for length, starts in told.items():
        for name, expected in starts.items():
            rule = PRESETS[name.lower()]
            found = [i * rule.stride for i in range(rule.count(int(length)))]
            assert found == (expected or [0])  # a short one is padded, where the script fails
            assert rule.pads(int(length)) == (not expected)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("frames", [1, 3, 9, 10, 31, 64])
def test_windows_have_their_frames_and_share_them(rule: WindowRule, frames: int) -> None:
    needed = list(rule.needed(frames))
    expected = [rule.ids(frames, i) for i in range(rule.count(frames))]
    assert needed == sorted({n for ids in expected for n in ids})
    made = (torch.tensor(n) for n in needed)
    windows = list(sliding(made, rule, frames))
    assert [[int(n) for n in window] for window in windows] == expected
    assert next(made, None) is None


def test_no_more_frames_are_held_than_a_window_spans() -> None:
    import gc
    import weakref

    rule = WindowRule(stride=4)
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()

    def frames() -> object:
        for n in rule.needed(2000):
            one = torch.tensor(n)
            alive.add(one)
            yield one

    most = 0
    for window in sliding(frames(), rule, 2000):  # type: ignore[arg-type]
        del window
        most = max(most, len(alive))
    gc.collect()
    assert 16 <= most <= 18


def test_short_videos_are_padded_or_left_to_the_report() -> None:
    padded = WindowRule(stride=4)
    assert padded.count(5) == 1
    assert padded.ids(5, 0) == [0, 1, 2, 3, 4] + [4] * 11
    assert WindowRule(stride=4, short="report").count(15) == 0
    assert not WindowRule(stride=4, short="report").pads(15)
    assert WindowRule(stride=4, short="report").count(16) == 1


def test_centres_are_those_that_detectors_assume() -> None:
    assert PRESETS["thumos14"].centres(28, 30.0) == [(i * 4 + 8) / 30.0 for i in range(4)]


@pytest.mark.parametrize("name", ["stride", "length", "frame_stride"])
def test_numbers_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        WindowRule(**{name: 0})
