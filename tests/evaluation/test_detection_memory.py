"""Scoring the key frames of a long video takes no more memory the longer it goes on."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from videomae_fast import ActionDetector, MAEConfig
from videomae_fast.data.boxes.clips import KeyFrameClips, key_frame_reading
from videomae_fast.data.boxes.detection_views import DetectionViews
from videomae_fast.data.boxes.entries import read_key_frames
from videomae_fast.data.decoders import DECODERS, Decoder
from videomae_fast.data.decoders.base import Frames, ReaderBase
from videomae_fast.evaluation.detection import ScoreSettings, looked_at, score_key_frames
from videomae_fast.recipes.box_source import BoxSource

HOURS, RATE, EVERY = 2, 30, 6  # a key frame every so many seconds


class LongMovie(ReaderBase):
    """Two hours of 30 frames/s, 340 x 256, made when they are read."""

    frame_count = HOURS * 3600 * RATE

    def read(self, ids: Sequence[int]) -> Frames:
        return np.full((len(ids), 256, 340, 3), ids[0] % 251, dtype=np.uint8)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_is_flat_over_two_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,199 clips hold 1.3 GB of decoded pixels; what is resident must not move."""
    (tmp_path / "movie.mp4").touch()
    seconds = range(EVERY, HOURS * 3600, EVERY)
    lines = (f"movie,{second:04d},0.1,0.1,0.6,0.9,1\n" for second in seconds)
    (tmp_path / "a.csv").write_text("".join(lines))
    monkeypatch.setitem(DECODERS, "pyav", Decoder("pyav", lambda _: LongMovie(), lambda: None))
    source = BoxSource(tmp_path / "a.csv", tmp_path, fps=float(RATE))
    reading = key_frame_reading(frames=4, views=DetectionViews(64, 64), training=False)
    clips = KeyFrameClips([read_key_frames(source, 3, 0.8)], reading, stride=4)
    config = MAEConfig(image_size=64, frames=4, width=32, depth=1, heads=2)
    model = ActionDetector(config, 3)
    resident: list[int] = []
    scored = score_key_frames(model, clips, looked_at(clips), ScoreSettings(), torch.device("cpu"))
    for number, one in enumerate(scored):
        assert one.failure is None
        if number % 50 == 49:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident.append(pages * resource.getpagesize())
    assert len(resident) == len(seconds) // 50
    early, late = resident[2:6], resident[6:]
    assert max(late) - max(early) < 24 * 2**20  # two percent of the pixels
