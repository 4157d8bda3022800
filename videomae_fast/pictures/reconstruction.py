"""What a pre-trained model makes of a masked clip, as pictures' pixels.

The model predicts the *normalised* pixels of a cube: per colour channel, in units of the cube's
own standard deviation around its own mean. Those two numbers are not predicted. So there are two
ways back to pixels, and both are given:

* with the ground truth's statistics: mean and deviation of each hidden cube are taken from the
  original, as the figures of the papers do. This shows what the model predicts and nothing else,
  but brightness and colour of a cube are given away.
* without: they are guessed so that the picture is continuous from cube to cube, starting from the
  visible ones (see :mod:`videomae_fast.pictures.statistics`). Nothing of what was hidden is used,
  but brightness and contrast are this guess, not the model's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from videomae_fast.errors import UsageError
from videomae_fast.masks import Grid, Masks, MaskSpec
from videomae_fast.models.masked_autoencoder import MaskedAutoencoder
from videomae_fast.pictures.statistics import guess_statistics, true_statistics

Clip = NDArray[np.uint8]
HIDDEN_GREY = 0.42
"""Grey level 0..1 of hidden cubes in the masked input."""


@dataclass(frozen=True)
class Reconstruction:
    """A clip and what was made of it; the clips are uint8 [T, H, W, 3], visible cubes as they are.

    Attributes:
        original: the clip.
        masked: hidden cubes in grey.
        without_statistics: hidden cubes predicted, their mean and deviation guessed from the
            visible ones and from continuity. The prediction itself where nothing is normalised.
        with_statistics: hidden cubes predicted, their mean and deviation those of the original.
            None where the model does not normalise.
        loss: mean squared error over the hidden cubes in the units of the training loss; 1 is
            about what a prediction of 0 scores.
        hidden_share: share of the clip's cubes that the model did not see.
    """

    original: Clip
    masked: Clip
    without_statistics: Clip
    with_statistics: Clip | None
    loss: float
    hidden_share: float


@torch.no_grad()
def reconstruct(
    model: MaskedAutoencoder, frames: Tensor, spec: MaskSpec | None = None, *, seed: int = 0
) -> Reconstruction:
    """Hides a part of a clip as `spec` says and lets the model predict all of it.

    Args:
        frames: uint8 [T, H, W, 3]; T, H and W any multiples of the model's tubelet and patch.
        spec: its encoder mask is used; the decoder decodes everything that is hidden.
        seed: the mask is a function of it alone.

    Raises:
        UsageError: the frames don't divide into cubes, or leave nothing to hide at this ratio.
    """
    config = model.config
    spec = replace(spec or MaskSpec(), decoder="none")
    device = next(model.parameters()).device
    clip = frames[None].to(device)
    try:
        grid = Grid.of(
            clip.shape[1], (clip.shape[2], clip.shape[3]), config.tubelet_size, config.patch_size
        )
        masks = Masks.from_seeds(torch.tensor([seed]), grid, spec, device=device)
    except ValueError as error:
        raise UsageError(str(error)) from None
    was_training = model.training
    try:
        out = model.eval()(clip, masks, return_prediction=True)
    finally:
        model.train(was_training)
    assert out.prediction is not None
    assert out.index is not None
    hidden = out.index[0].long().cpu()
    prediction = rearrange(out.prediction[0].float().cpu(), "n (values c) -> n values c", c=3)
    shape = _Cubes(grid, config.tubelet_size, config.patch_size)
    cubes = shape.split(frames.cpu().float() / 255)  # [N, values, colour]

    def clip_of(values: Tensor | float) -> Clip:
        filled = cubes.clone()
        filled[hidden] = values
        return shape.join(filled)

    with_statistics = None
    without = prediction
    if model.normalize_target:
        mean, deviation = true_statistics(cubes[hidden])
        with_statistics = clip_of(prediction * deviation + mean)
        visible = masks.visible[0].long().cpu()
        mean, deviation = guess_statistics(
            cubes, prediction, visible, hidden, grid, config.tubelet_size
        )
        without = prediction * deviation + mean
    return Reconstruction(
        original=frames.cpu().numpy(),
        masked=clip_of(HIDDEN_GREY),
        without_statistics=clip_of(without),
        with_statistics=with_statistics,
        loss=float(out.loss),
        hidden_share=len(hidden) / grid.tokens,
    )


@dataclass(frozen=True)
class _Cubes:
    """Frames as cubes and back, colours apart, pixels in the target's order (p0, p1, p2)."""

    grid: Grid
    tubelet: int
    patch: int

    def split(self, frames: Tensor) -> Tensor:
        """[T, H, W, 3] to [N, tubelet · patch², 3]."""
        layout = "(t p0) (h p1) (w p2) c -> (t h w) (p0 p1 p2) c"
        return rearrange(frames, layout, p0=self.tubelet, p1=self.patch, p2=self.patch)

    def join(self, cubes: Tensor) -> Clip:
        """[N, tubelet · patch², 3] in 0..1 to uint8 [T, H, W, 3], clipped."""
        layout = "(t h w) (p0 p1 p2) c -> (t p0) (h p1) (w p2) c"
        axes = {"h": self.grid.height, "w": self.grid.width}
        frames = rearrange(cubes, layout, p0=self.tubelet, p1=self.patch, p2=self.patch, **axes)
        out: Clip = (frames.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()
        return out
