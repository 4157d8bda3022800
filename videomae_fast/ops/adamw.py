"""AdamW of weights that matmuls read in bf16: gradients in bf16 in, weights and copies out.

It changes tensors in place and belongs to an optimizer, so it is no op with backends and gradients:
:mod:`videomae_fast.training.optimizer.update` calls it, and has to equal torch's AdamW with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import torch
from torch import Tensor

from videomae_fast.ops.registry import interpreted, triton_missing

ALIGNED = 16  # bytes: what the kernel reads at once


def why_not(device: torch.device) -> str | None:
    """Why the kernel can't update tensors on this device, or None."""
    if device.type != "cuda" and not interpreted():
        return f"the Triton kernel needs CUDA tensors, not {device} (or TRITON_INTERPRET=1)"
    return triton_missing()


class AdamWUpdate:
    """One launch that updates many tensors.

    Tensors are found by their addresses: those of gradients may be others in every step, except of
    a step that is recorded, in which they stay.

    Args:
        weights, firsts, seconds: fp32, contiguous: weights and both moments, which stay where they
            are.
        copies: the weights in `dtype`, written along with them; or None.
        groups: number of each weight's group.
        dtype: of the gradients.

    Raises:
        ValueError: a tensor does not lie as the kernel reads it.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        firsts: Sequence[Tensor],
        seconds: Sequence[Tensor],
        copies: Sequence[Tensor] | None,
        groups: Sequence[int],
        dtype: torch.dtype,
    ) -> None:
        self._kernels = import_module("videomae_fast.kernels.adamw")
        self._shapes = [weight.shape for weight in weights]
        self._dtype = dtype
        columns = [weights, firsts, seconds]
        for column in columns:
            self._check(column, torch.float32)
        if copies is not None:
            self._check(copies, dtype)
        last = [0] * len(weights) if copies is None else [copy.data_ptr() for copy in copies]
        fixed = [
            [*(column[i].data_ptr() for column in columns), last[i]] for i in range(len(weights))
        ]
        self._kept = (*columns, copies)  # their addresses are used
        device = weights[0].device if weights else torch.device("cpu")
        self._tensors = self._kernels.Tensors(
            [weight.numel() for weight in weights],
            groups,
            dtype=dtype,
            copies=copies is not None,
            device=device,
        )
        table = [[*own[:3], 0, own[3]] for own in fixed]
        self._tensors.addresses.copy_(torch.tensor(table, dtype=torch.int64).reshape(-1, 5))
        self._known: list[int] | None = None
        self._recorded = False

    def __call__(
        self,
        gradients: Sequence[Tensor],
        *,
        rates: Tensor,
        decays: Tensor,
        step: Tensor,
        scale: Tensor,
        skip: Tensor,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        """One update.

        Args:
            gradients: of the weights, in their order.
            rates, decays: fp32 [groups], on the device: learning rate and weight decay.
            step: fp32 scalar on the device, the number of this update, from 1.
            scale: fp32 scalar on the device that gradients are divided by.
            skip: fp32 scalar on the device; nothing changes where it is not 0.

        Raises:
            ValueError: a gradient does not lie as the kernel reads it.
        """
        self._check(gradients, self._dtype)
        self._place([gradient.data_ptr() for gradient in gradients])
        self._kernels.update(self._tensors, rates, decays, step, scale, skip, betas=betas, eps=eps)

    def write(self, gradients: list[int]) -> None:
        """Writes the gradients' addresses by launches, as a recorded step does."""
        self._kernels.write_addresses(self._tensors, gradients)

    def _check(self, tensors: Sequence[Tensor], dtype: torch.dtype) -> None:
        if len(tensors) != len(self._shapes):
            raise ValueError(f"{len(tensors)} tensors for {len(self._shapes)} weights")
        for tensor, shape in zip(tensors, self._shapes, strict=True):
            fits = tensor.shape == shape and tensor.dtype == dtype and tensor.is_contiguous()
            if not fits or tensor.data_ptr() % ALIGNED:
                raise ValueError(
                    f"AdamW in one pass wants contiguous {dtype} {list(shape)} at a multiple of "
                    f"{ALIGNED} bytes, got {tensor.dtype} {list(tensor.shape)}, strides "
                    f"{tensor.stride()}, at {tensor.data_ptr() % ALIGNED}"
                )

    def _place(self, gradients: list[int]) -> None:
        """Brings the gradients' addresses to the device, where they are not there already."""
        table = self._tensors.addresses
        if table.is_cuda and torch.cuda.is_current_stream_capturing():
            self.write(gradients)
            self._recorded = True  # replays write to the table from now on
        elif gradients != self._known or self._recorded:
            table[:, 3] = torch.tensor(gradients, dtype=torch.int64).to(table.device)
            self._known = gradients
