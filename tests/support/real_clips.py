"""Clips of cameras in H.264 (8 and 10 bits), H.265 and AV1, beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "shared" / "videos"
CLIPS = sorted(FOLDER.iterdir()) if FOLDER.is_dir() else []
needs_clips = pytest.mark.skipif(not CLIPS, reason="needs the real clips of ../shared/videos")
