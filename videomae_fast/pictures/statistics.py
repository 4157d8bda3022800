"""Mean and deviation of hidden cubes: their true values, and a guess that uses nothing hidden.

A prediction p of normalised pixels becomes pixels as ``mean + deviation · p``. The guess takes the
mean and deviation that make the picture continuous: neighbouring cubes shall have the same colours
along their common border, where visible cubes are what they are. Where that leaves a choice, values
stay near those of the visible cubes around (weights 1 / distance⁴). Both together are one
least-squares problem per colour channel, with two unknowns per hidden cube.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from videomae_fast.masks import Grid

# Weights of the equations, against 1 for a border: the mean follows the borders almost freely; the
# deviation hardly, since 0 would satisfy every border best.
PRIOR_MEAN, PRIOR_DEVIATION = 0.03, 1.0
TIME_BORDER = 0.5  # a moving picture is less alike from frame to frame than across a cube's edge


def true_statistics(cubes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of cubes [N, values, colour], each [N, 1, colour].

    Those of the loss's target: the variance is unbiased, and 1e-6 is added to its root.
    """
    variance, mean = torch.var_mean(cubes, dim=1, keepdim=True, correction=1)
    return mean, variance.sqrt() + 1e-6


@dataclass(frozen=True)
class Borders:
    """All pairs of cubes with a common border.

    Attributes:
        first, second: int64 [pairs], token positions.
        first_pixels, second_pixels: int64 [pairs, border], which of a cube's pixels lie along it.
        weight: fp64 [pairs].
    """

    first: Tensor
    second: Tensor
    first_pixels: Tensor
    second_pixels: Tensor
    weight: Tensor


def borders(grid: Grid, tubelet: int, patch: int) -> list[Borders]:
    """Pairs along time, height and width; each kind has borders of one size."""
    size = {"h": grid.height, "w": grid.width}
    token = rearrange(torch.arange(grid.tokens), "(t h w) -> t h w", **size)
    pixel = torch.arange(tubelet * patch * patch)
    pixel = rearrange(pixel, "(p0 p1 p2) -> p0 p1 p2", p1=patch, p2=patch)
    found = []
    for axis, weight in ((0, TIME_BORDER), (1, 1.0), (2, 1.0)):
        count, last = token.shape[axis], pixel.shape[axis] - 1
        first = token.narrow(axis, 0, count - 1).flatten()
        second = token.narrow(axis, 1, count - 1).flatten()
        end, begin = (pixel.select(axis, at).flatten() for at in (last, 0))
        pairs = len(first)
        found.append(
            Borders(
                first,
                second,
                end.expand(pairs, -1),
                begin.expand(pairs, -1),
                torch.full((pairs,), weight / end.numel(), dtype=torch.float64),
            )
        )
    return found


def guess_statistics(
    cubes: Tensor, prediction: Tensor, visible: Tensor, hidden: Tensor, grid: Grid, tubelet: int
) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the hidden cubes from the visible ones and the prediction.

    Args:
        cubes: fp32 [N, values, colour] in 0..1, colours apart; only those at `visible` are read.
        prediction: fp32 [hidden, values, colour], normalised pixels.
        visible, hidden: int64, token positions that together are all of the grid.

    Returns:
        Two tensors [hidden, 1, colour].
    """
    mean, deviation = true_statistics(cubes[visible])
    share = _closeness(grid, hidden, visible)
    mean = torch.einsum("hv,vxc->hxc", share, mean)
    deviation = torch.einsum("hv,vxc->hxc", share, deviation)
    patch = int((cubes.shape[1] // tubelet) ** 0.5)
    pairs = borders(grid, tubelet, patch)
    row = torch.full((grid.tokens,), -1)
    row[hidden] = torch.arange(len(hidden))
    for colour in range(cubes.shape[2]):
        # A cube's pixels are constant + unknown mean + unknown deviation * slope.
        constant = torch.zeros(cubes.shape[:2], dtype=torch.float64)
        constant[visible] = cubes[visible, :, colour].double()
        slope = torch.zeros_like(constant)
        slope[hidden] = prediction[:, :, colour].double()
        solution = _solve(pairs, row, constant, slope, mean[:, 0, colour], deviation[:, 0, colour])
        mean[:, 0, colour] = solution[0].to(mean.dtype)
        deviation[:, 0, colour] = solution[1].clamp(min=0).to(deviation.dtype)
    return mean, deviation


def _solve(
    pairs: list[Borders],
    row: Tensor,
    constant: Tensor,
    slope: Tensor,
    mean: Tensor,
    deviation: Tensor,
) -> Tensor:
    """[2, hidden]: means and deviations; unknown n is the mean, hidden + n the deviation of n."""
    count = len(mean)
    prior = torch.cat([mean, deviation]).double()
    trust = torch.tensor([PRIOR_MEAN, PRIOR_DEVIATION], dtype=torch.float64)
    trust = trust.repeat_interleave(count)
    matrix = torch.diag(trust)
    right = trust * prior
    for border in pairs:
        a, b = border.first, border.second
        edge_a = slope[a[:, None], border.first_pixels]
        edge_b = slope[b[:, None], border.second_pixels]
        known = constant[b[:, None], border.second_pixels]
        known = known - constant[a[:, None], border.first_pixels]
        one = torch.ones_like(edge_a)
        # The equation of each border pixel, over the unknowns of both cubes
        factors = torch.stack([one, edge_a, -one, -edge_b], dim=1)  # [pairs, 4, border]
        unknowns = torch.stack([row[a], row[a] + count, row[b], row[b] + count], dim=1)
        free = torch.stack([row[a] >= 0, row[a] >= 0, row[b] >= 0, row[b] >= 0], dim=1)
        factors = factors * free[:, :, None]
        unknowns = unknowns * free
        block = torch.einsum("pie,pje,p->pij", factors, factors, border.weight)
        at = (unknowns[:, :, None].expand_as(block), unknowns[:, None, :].expand_as(block))
        matrix.index_put_(at, block, accumulate=True)
        side = torch.einsum("pie,pe,p->pi", factors, known, border.weight)
        right.index_put_((unknowns,), side, accumulate=True)
    factor = torch.linalg.cholesky(matrix)
    return torch.cholesky_solve(right[:, None], factor).reshape(2, count)


def _closeness(grid: Grid, hidden: Tensor, visible: Tensor) -> Tensor:
    """Weights [hidden, visible] that sum to 1 in each row: 1 / distance⁴.

    Distances are in patches; a step of one time slot counts as much as one of a patch.
    """
    axes = (torch.arange(n) for n in (grid.slots, grid.height, grid.width))
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    place = rearrange(places, "n t h w -> (t h w) n").float()
    weight = torch.cdist(place[hidden], place[visible]).pow(-4)
    return weight / weight.sum(1, keepdim=True)
