"""The former name of :mod:`videomae_fast.masks`, for one version."""

from __future__ import annotations

import warnings

from videomae_fast.masks import Counts, Grid, LossOver, Masks, MaskSpec

__all__ = ["Counts", "Grid", "LossOver", "MaskSpec", "Masks"]

warnings.warn(
    "videomae_fast.masking is now videomae_fast.masks; the next version drops the former name",
    DeprecationWarning,
    stacklevel=2,
)
