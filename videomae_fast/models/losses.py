"""The pre-training loss by itself, for models and training loops that are not this library's."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from videomae_fast.masks import Masks
from videomae_fast.ops import pixel_mse


def masked_pixel_loss(
    prediction: Tensor,
    frames: Tensor,
    masks: Masks,
    *,
    normalize: bool = True,
    ignore_flat: bool = False,
    tokens: Literal["loss", "decoder"] | None = None,
) -> Tensor:
    """The mean over the tokens in the loss of their mean squared error against the clip's pixels.

    It takes the place of the official engine's targets and loss, without their tensors of targets:
    the frames stay uint8, and only tokens in the loss are looked at. ``loss.backward()`` works as
    with any loss, also under a gradient scaler.

    Args:
        prediction: what a model predicts, in the order (p0, p1, p2, c): for the tokens in the loss,
            [B, P, 3 · tubelet · patch²], as :class:`MaskedAutoencoder` returns it, or for all
            decoded ones, [B, M, 3 · tubelet · patch²], as the official models do.
        frames: uint8 [B, T, H, W, 3], before the normalisation for the encoder. Tubelet and patch
            size are what they are over the masks' grid.
        masks: of the same clips, on the same device: for boolean ones :meth:`Masks.from_bool`.
        normalize: targets normalised per cube and colour channel; plain pixels in 0..1 otherwise.
        ignore_flat: weight 0 for cubes without texture. The official loss has no such thing.
        tokens: which of the two `prediction` holds. None: its number of tokens says it.

    Returns:
        Scalar, fp32 (fp64 if `prediction` is); 0 where no token has weight.

    Raises:
        ValueError: shapes, dtypes or batch sizes that don't fit, or as many decoded tokens as there
            are in the loss where masks have weights, so that `tokens` has to tell them apart.

    Source: engine_for_pretraining.py of the official V2 code.
    """
    tubelet, patch = _cube(frames, masks)
    batch, in_loss, decoded = len(masks), masks.loss_index.shape[1], masks.decoder.shape[1]
    values = 3 * tubelet * patch**2
    wanted = {"loss": [batch, in_loss, values], "decoder": [batch, decoded, values]}
    if tokens is None:
        if in_loss == decoded and masks.loss_weight is not None:
            # Lists in the loss may end in padding; then they are not in the order of the decoder's.
            raise ValueError(
                f"{decoded} tokens may be those in the loss or all that are decoded: say "
                'tokens="loss" or tokens="decoder"'
            )
        tokens = "loss" if list(prediction.shape) == wanted["loss"] else "decoder"
        told = f"{wanted['loss']} (tokens in the loss) or {wanted['decoder']} (decoded tokens)"
    elif tokens in wanted:
        told = str(wanted[tokens])
    else:
        raise ValueError(f'tokens must be "loss" or "decoder", not {tokens!r}')
    if list(prediction.shape) != wanted[tokens]:
        raise ValueError(f"prediction must be {told}, got {list(prediction.shape)}")
    whole = tokens == "decoder"
    loss_sum, weight_sum = pixel_mse(
        prediction,
        frames,
        masks.decoder if whole else masks.loss_index,
        _decoder_weight(masks) if whole else masks.loss_weight,
        tubelet_size=tubelet,
        patch_size=patch,
        normalize=normalize,
        ignore_flat=ignore_flat,
    )
    return loss_sum / weight_sum.clamp(min=torch.finfo(weight_sum.dtype).tiny)


def _cube(frames: Tensor, masks: Masks) -> tuple[int, int]:
    """(tubelet, patch) of which the frames' grid is the masks'."""
    if frames.ndim != 5 or frames.shape[-1] != 3 or frames.dtype != torch.uint8:
        raise ValueError(
            f"frames must be uint8 [B, T, H, W, 3], as they are before normalisation, got "
            f"{frames.dtype} {list(frames.shape)}"
        )
    grid = masks.grid
    b, t, h, w, _ = frames.shape
    tubelet, patch = t // grid.slots, h // grid.height
    covered = (grid.slots * tubelet, grid.height * patch, grid.width * patch)
    if covered != (t, h, w) or min(t, h, w) == 0 or b != len(masks):
        raise ValueError(f"{len(masks)} masks of {grid} don't fit frames {list(frames.shape)}")
    return tubelet, patch


def _decoder_weight(masks: Masks) -> Tensor:
    """fp32 [B, M]: the loss weight of every decoded token."""
    weight = masks.loss_weight
    if weight is None:
        weight = torch.ones(masks.loss_slot.shape, dtype=torch.float32, device=masks.device)
    # A sum, because padding repeats a slot, with weight 0
    zeros = torch.zeros(masks.decoder.shape, dtype=torch.float32, device=masks.device)
    return zeros.scatter_add(1, masks.loss_slot.long(), weight)
