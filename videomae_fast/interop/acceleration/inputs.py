"""What the accelerated forms make of other code's inputs, clips and boolean masks, and back."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from videomae_fast.interop.acceleration.plain import is_plain
from videomae_fast.masks import Masks
from videomae_fast.ops import linear, patch_gather
from videomae_fast.ops.mask_indices import compact
from videomae_fast.ops.patch_gather import IMAGENET_MEAN, IMAGENET_STD


class Visible(NamedTuple):
    """Which tokens the encoder sees, where a form hands them to a form in place of a mask.

    Attributes:
        tokens: int32 [B, V], ascending.
    """

    tokens: Tensor


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
        ValueError: clips that differ in how many tokens are seen or decoded; Masks and a
            decode_mask; Masks that decode another number of tokens in each clip.
    """
    if isinstance(mask, Masks):
        _only(mask, decode_mask)
        if mask.decoder_count is not None:
            raise ValueError(
                "these masks decode another number of tokens in each clip, which this model's "
                "output has no place for: use a grid or a decoder mask with equal numbers"
            )
        return mask.visible, mask.decoder
    seen, kept = chosen(~mask, mask if decode_mask is None else ~decode_mask)
    return seen, kept


def _only(masks: Masks, decode_mask: Tensor | None) -> None:
    if decode_mask is not None:
        raise ValueError("Masks hold the decoder's mask already: leave decode_mask out")


def clip_tokens(x: Tensor, proj: nn.Conv3d, size: tuple[int, int] | None) -> int | None:
    """How many tokens clips give, or None where they are not of the shape that a model expects.

    Args:
        x: floating [B, C, T, H, W], or uint8 frames [B, T, H, W, 3].
        proj: kernel and stride are a token's cube.
        size: height and width that the model insists on; None: any.

    Raises:
        ValueError: uint8 frames of another shape, which the original code doesn't know.
    """
    frames = x.dtype == torch.uint8
    if x.ndim != 5 or x.shape[-1 if frames else 1] != proj.in_channels:
        fits = False
    else:
        _, *clip = (x.shape[0], *x.shape[1:4]) if frames else (x.shape[0], *x.shape[2:])
        fits = all(n % unit == 0 for n, unit in zip(clip, proj.kernel_size, strict=True))
        fits = fits and (size is None or tuple(clip[1:]) == tuple(size))
    if not fits:
        if not frames:
            return None
        wanted = "height and width" if size is None else f"{size[0]} x {size[1]} pixels"
        raise ValueError(
            f"frames must be uint8 [B, T, H, W, 3] of {wanted}, in whole cubes of "
            f"{list(proj.kernel_size)}; got {list(x.shape)}"
        )
    slots, rows, columns = (n // unit for n, unit in zip(clip, proj.kernel_size, strict=True))
    tokens: int = slots * rows * columns
    return tokens


def usual_masks(x: Tensor, proj: nn.Conv3d, *masks: Tensor | Masks) -> bool:
    """Whether masks are bool [B, N] of these clips, or Masks.

    Args:
        x: floating [B, C, T, H, W], or uint8 frames [B, T, H, W, 3].

    Raises:
        ValueError: Masks of another batch or grid, which the original code doesn't know.
    """
    tokens = clip_tokens(x, proj, None)
    for mask in masks:
        if isinstance(mask, Masks):
            if (len(mask), mask.grid.tokens) != (len(x), tokens):
                raise ValueError(
                    f"{len(mask)} masks of {mask.grid} don't fit {len(x)} clips of {tokens} tokens"
                )
        elif mask.dtype != torch.bool or tuple(mask.shape) != (len(x), tokens):
            return False
    return True


def own_clips(x: Tensor, model: nn.Module, *, channels: int = 1) -> Tensor:
    """Clips as a model's own code takes them: uint8 frames [B, T, H, W, 3] are normalised.

    Args:
        channels: which dimension of the result holds the colours.
    """
    if x.dtype != torch.uint8:
        return x
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    mean = torch.tensor(IMAGENET_MEAN, device=x.device)
    std = torch.tensor(IMAGENET_STD, device=x.device)
    return ((x / 255 - mean) / std).to(dtype).movedim(-1, channels)


def own_mask(mask: Tensor | Visible, tokens: int) -> Tensor:
    """A mask as the original code takes it: bool [B, N], True = not seen."""
    if not isinstance(mask, Visible):
        return mask
    index = mask.tokens.long()
    unseen = torch.ones((len(index), tokens), dtype=torch.bool, device=index.device)
    return unseen.scatter(1, index, False)


def own_masks(
    mask: Tensor | Masks, decode_mask: Tensor | None, *, decodes: bool
) -> tuple[Tensor, ...]:
    """Masks as the original code takes them: bool [B, N], True = masked.

    Args:
        decodes: whether it takes a mask for the decoder.

    Raises:
        ValueError: Masks and a decode_mask, or Masks of a decoder that takes none.
    """
    if not isinstance(mask, Masks):
        return (mask,) if decode_mask is None else (mask, decode_mask)
    _only(mask, decode_mask)
    encoder, decoder = mask.to_bool()
    if decodes:
        return encoder, decoder
    if not torch.equal(decoder, ~encoder):
        raise ValueError("this model's code knows no decoder mask: use MaskSpec(decoder='none')")
    return (encoder,)


def projected(module: nn.Module, x: Tensor) -> Tensor:
    """A linear layer on this library's op, and any other module in its place by its own code."""
    if is_plain(module, nn.Linear):
        whole: Any = module
        return linear(x, whole.weight, whole.bias)
    out: Tensor = module(x)
    return out


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
    if not is_plain(proj, nn.Conv3d):
        return f"the patch projection is a {type(proj).__name__}, or hooked, not a plain Conv3d"
    assert isinstance(proj, nn.Conv3d)
    if tuple(proj.kernel_size) != tuple(proj.stride):
        return f"the patches overlap: kernel {proj.kernel_size}, stride {proj.stride}"
    if proj.kernel_size[1] != proj.kernel_size[2]:
        return f"the patches are not square: {proj.kernel_size}"
    plain = proj.groups == 1 and set(proj.dilation) == {1} and not any(map(bool, proj.padding))
    return None if plain else "the patch projection has groups, dilation or padding"
