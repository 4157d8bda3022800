"""The native ops that read uint8 frames: patch gather and normalised-pixel MSE.

A token position outside the grid is an IndexError; cubes go up to 66,000 pixels, patches up to 256
wide. Sums are fp64, the same for any thread count.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from videomae_fast.arguments import Arguments, contiguous
from videomae_fast.ops._native.calls import call


def levels(mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Every value that a pixel can have, fp32 [3, 256], with the reference's own arithmetic."""
    level = torch.arange(256, dtype=torch.float32) / 255
    offset, scale = torch.tensor([list(mean), list(std)], dtype=torch.float32)
    table: Tensor = (level - offset[:, None]) / scale[:, None]
    return table


def patch_gather(args: Arguments) -> Tensor:
    """Bit for bit the reference's."""
    frames, index = args.frames.contiguous(), args.index.contiguous()
    dtype, cube = args.dtype, (args.tubelet_size, args.patch_size)
    table = levels(args.mean, args.std).to(dtype)
    out = torch.empty((*index.shape, 3 * cube[0] * cube[1] ** 2), dtype=dtype)
    sizes = (dtype.itemsize, *index.shape, *frames.shape[1:4], *cube)
    call("vmf_patch_gather", "ppppiiiiiiii", frames, index, table, out, *sizes, index=(index,))
    return out


def pixel_mse(args: Arguments) -> tuple[Tensor, Tensor]:
    return _scalars(losses(args, with_loss=True)[0])


def pixel_mse_backward(args: Arguments) -> Tensor:
    return losses(args, gradient_of=float(args.grad))[2]


def pixel_mse_with_gradient(args: Arguments) -> tuple[Tensor, Tensor, Tensor]:
    """The same bits as those of the two."""
    sums, _, gradient = losses(args, with_loss=True, gradient_of=args.scale)
    return (*_scalars(sums), gradient)


def _scalars(sums: Tensor) -> tuple[Tensor, Tensor]:
    loss_sum, weight_sum = sums.to(torch.float32)
    return loss_sum.clone(), weight_sum.clone()


def losses(
    args: Arguments, *, with_loss: bool = False, gradient_of: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, its gradient, or both.

    Returns:
        Sums of the loss and of weights, fp64 [2]; each token's loss, fp32 [B, K], 0 where its
        weight is 0; the gradient of ``gradient_of * loss_sum``. Nothing of what is not asked for.
    """
    tensors = contiguous(args.prediction, args.frames, args.index, args.weight)
    prediction, frames, index, _ = tensors
    sums = torch.empty(2, dtype=torch.float64)
    token_loss, token_weight = torch.empty(
        (2, *index.shape) if with_loss else (2, 0), dtype=torch.float32
    )
    gradient = torch.empty(0 if gradient_of is None else prediction.shape, dtype=torch.float32)
    of_loss = (token_loss, token_weight, sums) if with_loss else (None, None, None)
    of_gradient = (None, 1.0) if gradient_of is None else (gradient, gradient_of)
    sizes = (*index.shape, *frames.shape[1:4], args.tubelet_size, args.patch_size)
    flags = (int(args.normalize), int(args.ignore_flat))
    call(
        "vmf_pixel_mse", "ppppppppfiiiiiiibb",
        *tensors, *of_loss, *of_gradient, *sizes, *flags, index=(index,),
    )  # fmt: skip
    return sums, token_loss, gradient
