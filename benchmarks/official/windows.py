"""How the official code takes features for temporal detection, transcribed.

For each window 16 consecutive frames are decoded anew by decord, however many of them the window
before had; they become fp32 planes in 0..1, are resized to 224 x 224 whatever their aspect, and go
through the model as a batch of one. The features of all windows are stacked at the end.

Source: extract_tad_feature.py and dataset/loader.py of the official V2 code.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.official.model import OfficialClassifier

LENGTH = 16


def official_windows(
    model: OfficialClassifier, path: Path, stride: int, size: tuple[int, int] = (224, 224)
) -> NDArray[np.float32]:
    """Features of all windows of a video, fp32 [windows, width].

    Args:
        model: in eval mode, on the CPU.
        path: of the video; at least 16 frames.
        stride: frames between windows' starts, officially 4 (THUMOS14) or 16 (FineAction).
        size: (height, width) of a clip, officially 224 x 224.

    Raises:
        ValueError: no window, where the official script fails.
    """
    import decord

    video = decord.VideoReader(str(path), num_threads=1, ctx=decord.cpu(0))
    features = []
    for start in range(0, len(video) - LENGTH + 1, stride):
        data = video.get_batch(np.arange(start, start + LENGTH)).asnumpy()
        with torch.no_grad():
            feature = model.features(_clip(torch.from_numpy(data), size)[None])
        features.append(feature.cpu().numpy())
    if not features:
        raise ValueError(f"{path}: {len(video)} frames, and a window has {LENGTH}")
    return np.vstack(features)


def _clip(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [T, H, W, 3] to fp32 [3, T, height, width] in 0..1."""
    planes = frames.permute(3, 0, 1, 2).to(torch.float32) / 255
    return F.interpolate(planes, size=size, mode="bilinear", align_corners=False)
