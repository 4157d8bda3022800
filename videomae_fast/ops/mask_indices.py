"""Mask-index generation: one seed per clip in, sorted token indices out, on any device.

The official code builds boolean masks on the CPU, one clip at a time, and turns them into indices
with five device syncs a step. Here every count is static, so nothing has to be read back.

A clip's masks are a function of its seed alone: a counter-based integer hash gives every position
a 32-bit key and the smallest keys are chosen, so that a uniformly random subset of exactly the
asked size comes out, the same one on every device and backend.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.ops._declare import declare, triton

ENCODER_KINDS = ("tube", "random", "frame")
DECODER_KINDS = ("none", "running-cell", "random", "frame")
CELL = 4  # positions of a 2x2 running cell
_ENCODER_STREAM, _DECODER_STREAM = 0x51ED270B, 0x2545F491
_U32 = 0xFFFFFFFF


def mask_indices(
    seeds: Tensor,
    *,
    slots: int,
    height: int,
    width: int,
    encoder: str,
    encoder_masked: int,
    decoder: str,
    decoder_masked: int,
    loss_over_all: bool,
    skip_seen: bool,
    visible_tokens: int,
    decoder_tokens: int,
    loss_tokens: int,
    impl: str = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Token indices of a batch of clips, ascending, padded to static sizes.

    Args:
        seeds: int64 [B], one per clip.
        slots: time slots of the token grid.
        height: its rows.
        width: its columns.
        encoder: "tube" (one spatial mask for all slots), "random" or "frame" (whole slots).
        encoder_masked: masked positions per slot (tube), in all (random) or masked slots (frame).
        decoder: "none" (all that the encoder did not see is decoded), "running-cell", "random" or
            "frame".
        decoder_masked: of each cell's 4 positions (running-cell), in all, or slots.
        loss_over_all: every decoded token is in the loss, not only those the encoder did not see.
        skip_seen: tokens the encoder saw are not decoded.
        visible_tokens: V, as the next two a static size, which the caller computes as the largest
            count that can occur (:class:`~videomae_fast.masks.Counts`).
        decoder_tokens: M, of the lists of tokens that are decoded.
        loss_tokens: P, of the lists of tokens in the loss.
        impl: "auto", "triton" (CUDA) or "reference".

    Returns:
        visible int32 [B, V]; decoder int32 [B, M]; decoder_count int32 [B], how many of M are
        valid; loss_slot int32 [B, P], indices into the decoder list; loss_weight fp32 [B, P], 1
        or, for padding, 0. Padding points at entry 0 (position 0 in `decoder`).

    Raises:
        ValueError: seeds of a wrong shape or dtype, or a mask that is none.
        BackendUnavailableError: `impl` can't run here.

    Source: dataset/masking_generator.py of the official V2 code.
    """
    if seeds.ndim != 1 or seeds.dtype != torch.int64:
        raise ValueError(f"seeds must be int64 [B], got {seeds.dtype} {list(seeds.shape)}")
    if encoder not in ENCODER_KINDS:
        raise ValueError(f"encoder mask {encoder!r} is none of {ENCODER_KINDS}")
    if decoder not in DECODER_KINDS:
        raise ValueError(f"decoder mask {decoder!r} is none of {DECODER_KINDS}")
    out: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = _MASK_INDICES(
        impl,
        seeds,
        slots,
        height,
        width,
        encoder,
        encoder_masked,
        decoder,
        decoder_masked,
        loss_over_all,
        skip_seen,
        visible_tokens,
        decoder_tokens,
        loss_tokens,
    )
    return out


def hash32(x: Tensor) -> Tensor:
    """A bijective mix of 32-bit integers held in int64 (the lowbias32 constants of C. Wellons)."""
    x = x & _U32
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _U32
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _U32
    return x ^ (x >> 16)


def stream_key(seeds: Tensor, stream: int) -> Tensor:
    """A 32-bit key of each 64-bit seed for one stream of draws: int64 [B]."""
    return hash32(hash32(seeds ^ stream) ^ (seeds >> 32))


def position_keys(seeds: Tensor, stream: int, n: int) -> Tensor:
    """One 32-bit key per clip and position: int64 [B, n]."""
    position = torch.arange(n, device=seeds.device)
    return hash32(hash32(position * 0x9E3779B9 + stream_key(seeds, stream)[:, None]) + position)


def running_cell_kept(slots: int, height: int, width: int, masked: int, pattern: Tensor) -> Tensor:
    """Which positions a running-cell pattern keeps: bool [..., slots, height, width].

    Cells are 2x2, their positions counted in row-major order; the run of `masked` masked ones
    moves on by one each slot. Odd grids end in cut cells.
    """
    device = pattern.device
    row = torch.arange(height, device=device)[:, None] % 2
    column = torch.arange(width, device=device)[None, :] % 2
    slot = torch.arange(slots, device=device)[:, None, None]
    place = 2 * row + column + slot + 1  # [slots, height, width]
    return (place + pattern[..., None, None, None]) % CELL >= masked


def running_cell_pattern(seeds: Tensor) -> Tensor:
    """The running-cell pattern of each clip, 0..3: int64 [B]."""
    return stream_key(seeds, _DECODER_STREAM) >> 30


def compact(mask: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The positions of a mask's True entries, ascending, padded with 0 to a static size.

    Args:
        mask: bool [B, N].
        size: K, at least the largest count of True in a row.

    Returns:
        (int32 [B, K] positions, int32 [B] counts).
    """
    b, n = mask.shape
    rank = mask.cumsum(1) - 1
    place = torch.where(mask, rank, size)
    out = torch.zeros((b, size + 1), dtype=torch.int32, device=mask.device)
    position = torch.arange(n, dtype=torch.int32, device=mask.device).expand(b, n)
    out.scatter_(1, place, position)
    return out[:, :size].contiguous(), mask.sum(1, dtype=torch.int32)


def _chosen(seeds: Tensor, stream: int, n: int, count: int) -> Tensor:
    """A uniformly random subset of exactly `count` of n positions: bool [B, n]."""
    keys = position_keys(seeds, stream, n) * n + torch.arange(n, device=seeds.device)  # no ties
    smallest = keys.topk(count, dim=1, largest=False, sorted=False).indices
    mask = torch.zeros(keys.shape, dtype=torch.bool, device=seeds.device)
    return mask.scatter_(1, smallest, True)


def _reference(
    seeds: Tensor,
    slots: int,
    height: int,
    width: int,
    encoder: str,
    encoder_masked: int,
    decoder: str,
    decoder_masked: int,
    loss_over_all: bool,
    skip_seen: bool,
    visible_tokens: int,
    decoder_tokens: int,
    loss_tokens: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    b, space = seeds.shape[0], height * width
    n = slots * space

    def chosen(stream: int, kind: str, masked: int) -> Tensor:
        if kind == "tube":
            return _chosen(seeds, stream, space, space - masked).repeat(1, slots)
        if kind == "frame":
            return _chosen(seeds, stream, slots, slots - masked).repeat_interleave(space, 1)
        return _chosen(seeds, stream, n, n - masked)

    seen = chosen(_ENCODER_STREAM, encoder, encoder_masked)
    if decoder == "none":
        kept = ~seen
    elif decoder == "running-cell":
        pattern = running_cell_pattern(seeds)
        kept = running_cell_kept(slots, height, width, decoder_masked, pattern).reshape(b, n)
    else:
        kept = chosen(_DECODER_STREAM, decoder, decoder_masked)
    if skip_seen:
        kept = kept & ~seen
    visible, _ = compact(seen, visible_tokens)
    decoded, decoder_count = compact(kept, decoder_tokens)
    position = torch.arange(decoder_tokens, device=seeds.device)
    in_loss = position < decoder_count[:, None]
    if not loss_over_all:
        in_loss = in_loss & ~seen.gather(1, decoded.long())
    loss_slot, loss_count = compact(in_loss, loss_tokens)
    valid = torch.arange(loss_tokens, device=seeds.device) < loss_count[:, None]
    return visible, decoded, decoder_count, loss_slot, valid.to(torch.float32)


# One program of the kernel holds all positions of a clip.
_TRITON_TOKENS = 16_384


def _triton_unfit(slots: int, height: int, width: int) -> str | None:
    tokens = slots * height * width
    if tokens > _TRITON_TOKENS:
        return f"the kernel takes grids of at most {_TRITON_TOKENS} tokens, not {tokens}"
    return None


_MASK_INDICES = declare(
    "mask_indices", _reference, triton=triton("mask_indices", "mask_indices", unfit=_triton_unfit)
)
