"""What the accelerated forms make of other code's inputs: clips and boolean masks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from videomae_fast.masking import Masks
from videomae_fast.ops import linear, patch_gather
from videomae_fast.ops.mask_indices import compact


def chosen(*masks: Tensor) -> list[Tensor]:
    """The tokens that each mask chooses, ascending: bool [B, N], True = chosen, to int32 [B, K].

    How many they are is read back from the device, once for all masks; nothing waits for masks
    that are on the CPU.

    Raises:
        ValueError: clips that differ in how many tokens are chosen.
    """
    counts = [mask.sum(1) for mask in masks]
    extremes = torch.stack([extreme for c in counts for extreme in (c.min(), c.max())]).tolist()
    found = []
    for mask, least, most in zip(masks, extremes[0::2], extremes[1::2], strict=True):
        if least != most:
            raise ValueError(
                f"every clip must have as many chosen tokens; here from {least} to {most}"
            )
        found.append(compact(mask, most)[0])
    return found


def visible_and_decoded(mask: Tensor | Masks, decode_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Which tokens the encoder sees, and which get a mask token: int32 [B, V] and [B, M].

    Args:
        mask: bool [B, N], True = not seen by the encoder; or Masks, which cost no device sync.
        decode_mask: bool [B, N], True = not decoded; None decodes what the encoder does not see.

    Raises:
        ValueError: masks that are not bool; clips that differ in how many tokens are seen or
            decoded; Masks and a decode_mask.
    """
    if isinstance(mask, Masks):
        if decode_mask is not None:
            raise ValueError("Masks hold the decoder's mask already: leave decode_mask out")
        if mask.decoder_count is not None:
            raise ValueError(
                "these masks decode another number of tokens in each clip, which this model's "
                "output has no place for: use a grid or a decoder mask with equal numbers"
            )
        return mask.visible, mask.decoder
    for given in (mask, decode_mask):
        if given is not None and given.dtype != torch.bool:
            raise ValueError(f"masks must be bool [B, N], True = masked, got {given.dtype}")
    unseen = mask.flatten(1)
    decoded = unseen if decode_mask is None else ~decode_mask.flatten(1)
    seen, kept = chosen(~unseen, decoded)
    return seen, kept


def cubes_at(clips: Tensor, index: Tensor, cube: tuple[int, int, int]) -> Tensor:
    """The cubes of the tokens at `index`, in the order of a Conv3d's weight.

    Args:
        clips: floating [B, C, T, H, W].
        index: int [B, K].
        cube: (tubelet, patch, patch), in pixels.

    Returns:
        [B, K, C, tubelet, patch, patch]; only these cubes are read.
    """
    b, c, t, h, w = clips.shape
    depth, height, width = cube
    grid = clips.view(b, c, t // depth, depth, h // height, height, w // width, width)
    grid = grid.permute(0, 2, 4, 6, 1, 3, 5, 7)
    rows, columns = grid.shape[2], grid.shape[3]
    position = index.long()
    slot = position // (rows * columns)
    row, column = position // columns % rows, position % columns
    clip = torch.arange(b, device=clips.device)[:, None]
    return grid[clip, slot, row, column]


def embed(proj: nn.Conv3d, clips: Tensor, index: Tensor | None) -> Tensor:
    """A patch embedding's Conv3d at some tokens only, as a matmul.

    Args:
        proj: kernel and stride are a token's cube.
        clips: floating [B, C, T, H, W], already normalised; or uint8 frames [B, T, H, W, 3], which
            are normalised with ImageNet's mean and standard deviation.
        index: int32 [B, K], or None for all tokens.

    Returns:
        [B, K, width].

    Raises:
        ValueError: clips of a wrong shape.
    """
    tubelet, patch, _ = cube = _cube(proj)
    weight = proj.weight.flatten(1)
    if clips.dtype == torch.uint8:
        b, t, h, w = clips.shape[:4]
        if index is None:
            tokens = t // tubelet * (h // patch) * (w // patch)
            every = torch.arange(tokens, dtype=torch.int32, device=clips.device)
            index = every.expand(b, -1)
        patches = patch_gather(
            clips, index, tubelet_size=tubelet, patch_size=patch, dtype=weight.dtype
        )
        return linear(patches, weight, proj.bias)
    if clips.ndim != 5 or clips.shape[1] != proj.in_channels:
        raise ValueError(f"clips must be [B, {proj.in_channels}, T, H, W], got {list(clips.shape)}")
    for size, unit in zip(clips.shape[2:], cube, strict=True):
        if size % unit:
            raise ValueError(f"clips of {list(clips.shape[2:])} do not divide into cubes {cube}")
    if index is None:
        b, c, t, h, w = clips.shape
        grid = clips.view(b, c, t // tubelet, tubelet, h // patch, patch, w // patch, patch)
        cubes = grid.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(b, -1, c * tubelet * patch * patch)
    else:
        cubes = cubes_at(clips, index, cube).flatten(2)
    return linear(cubes, weight, proj.bias)


def _cube(proj: nn.Conv3d) -> tuple[int, int, int]:
    depth, height, width = proj.kernel_size
    return depth, height, width


def why_no_embedding(proj: nn.Module) -> str | None:
    """Why this projection is not a plain patch embedding, or None."""
    if type(proj) is not nn.Conv3d:
        return f"the patch projection is a {type(proj).__name__}, not a Conv3d"
    if tuple(proj.kernel_size) != tuple(proj.stride):
        return f"the patches overlap: kernel {proj.kernel_size}, stride {proj.stride}"
    if proj.kernel_size[1] != proj.kernel_size[2]:
        return f"the patches are not square: {proj.kernel_size}"
    plain = proj.groups == 1 and set(proj.dilation) == {1} and not any(map(bool, proj.padding))
    return None if plain else "the patch projection has groups, dilation or padding"
