"""What the encoder sees, what is decoded, and what is in the loss."""

from __future__ import annotations

from videomae_fast.masks.batch import Masks
from videomae_fast.masks.grid import Grid
from videomae_fast.masks.spec import Counts, LossOver, MaskSpec

__all__ = ["Counts", "Grid", "LossOver", "MaskSpec", "Masks"]
