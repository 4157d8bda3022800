"""Mask-index generation: one program makes all masks of a clip from its seed.

A subset of exactly k of n positions is those with the k smallest 32-bit keys, ties by position.
The k-th smallest key is found bit by bit, by counting the keys below a candidate; then membership
is a comparison, so that a position's can be told from its slot or its place in the slot without
moving anything between lanes. Compaction is a prefix sum and a scattered store.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from videomae_fast.arguments import Arguments
from videomae_fast.kernels.host import power_of_2

# The streams of random draws, as in ops/mask_indices.py.
_ENCODER_STREAM = tl.constexpr(0x51ED270B)
_DECODER_STREAM = tl.constexpr(0x2545F491)


@dataclass(frozen=True)
class Launch:
    """Launch choices; modelled, not yet measured on a GPU.

    Attributes:
        tokens_per_warp: 256 positions are 8 a lane. A batch of 128 clips is 128 programs, one wave
            that waits on latencies (32 rounds of counting per subset), not on bytes: many warps.
        most_warps: 16, beyond which a round waits longer for all warps than it gains.
    """

    tokens_per_warp: int = 256
    most_warps: int = 16
    num_stages: int = 1


LAUNCH = Launch()


@triton.jit
def _hash32(x):  # uint32
    """A bijective mix of 32-bit integers (the lowbias32 constants of C. Wellons)."""
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15)
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _stream_key(seed, STREAM: tl.constexpr):
    """A 32-bit key of a 64-bit seed for one stream of draws."""
    return _hash32(_hash32(seed.to(tl.uint32) ^ STREAM) ^ (seed >> 32).to(tl.uint32))


@triton.jit
def _position_keys(stream_key, position):
    """One 32-bit key per position, uint32 like `position`."""
    return _hash32(_hash32(position * 0x9E3779B9 + stream_key) + position)


@triton.jit
def _chosen(
    stream_key,
    position,  # int32 [BLOCK], of COUNT positions to choose from; may repeat
    COUNT: tl.constexpr,
    CHOSEN: tl.constexpr,
    BLOCK_COUNT: tl.constexpr,
):
    """Whether each position is one of the CHOSEN with the smallest keys: bool [BLOCK]."""
    o_all = tl.arange(0, BLOCK_COUNT)  # [BLOCK_COUNT]
    m_all = o_all < COUNT
    b_keys = _position_keys(stream_key, o_all.to(tl.uint32))
    # The largest key with fewer than CHOSEN keys below it is the CHOSEN-th smallest.
    limit = stream_key * 0  # uint32 scalar
    bit = limit + 0x80000000
    for _ in range(32):
        candidate = limit | bit
        below = tl.sum((m_all & (b_keys < candidate)).to(tl.int32), axis=0)
        limit = tl.where(below < CHOSEN, candidate, limit)
        bit = bit >> 1
    # Of the keys equal to it, the first few positions.
    m_tie = m_all & (b_keys == limit)
    wanted = CHOSEN - tl.sum((m_all & (b_keys < limit)).to(tl.int32), axis=0)
    m_tie = m_tie & (tl.cumsum(m_tie.to(tl.int32), axis=0) <= wanted)
    last_tie = tl.max(tl.where(m_tie, o_all, -1), axis=0)
    b_key = _position_keys(stream_key, position.to(tl.uint32))  # [BLOCK]
    return (b_key < limit) | ((b_key == limit) & (position <= last_tie))


@triton.jit
def _chosen_tokens(
    seed,
    o_token,  # int32 [BLOCK]
    STREAM: tl.constexpr,
    KIND: tl.constexpr,
    MASKED: tl.constexpr,
    SLOTS: tl.constexpr,
    SPACE: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_SPACE: tl.constexpr,
    BLOCK_SLOTS: tl.constexpr,
):
    """Whether a mask of this kind leaves each token unmasked: bool [BLOCK]."""
    key = _stream_key(seed, STREAM)
    if KIND == "tube":
        m_chosen = _chosen(key, o_token % SPACE, SPACE, SPACE - MASKED, BLOCK_SPACE)
    elif KIND == "frame":
        m_chosen = _chosen(key, o_token // SPACE, SLOTS, SLOTS - MASKED, BLOCK_SLOTS)
    else:
        m_chosen = _chosen(key, o_token, SLOTS * SPACE, SLOTS * SPACE - MASKED, BLOCK)
    return m_chosen


@triton.jit
def _store_compact(
    p_out,  # [SIZE] int32
    m_token,  # bool [BLOCK], whose True entries are listed
    value,  # int32 [BLOCK]
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Lists the values where the mask is True, padded with 0; returns each one's place and count.

    Padding starts where the list ends, so no two lanes store to the same place.
    """
    rank = tl.cumsum(m_token.to(tl.int32), axis=0) - 1
    count = tl.sum(m_token.to(tl.int32), axis=0)
    tl.store(p_out + rank, value, mask=m_token & (rank < SIZE))
    for start in range(0, SIZE, BLOCK):
        o_entry = start + tl.arange(0, BLOCK)  # [BLOCK]
        tl.store(p_out + o_entry, o_entry * 0, mask=(o_entry >= count) & (o_entry < SIZE))
    return rank, count


@triton.jit
def mask_indices_kernel(
    seeds_ptr,  # [B] int64
    visible_ptr,  # [B, VISIBLE] int32
    decoder_ptr,  # [B, DECODED] int32
    decoder_count_ptr,  # [B] int32
    loss_slot_ptr,  # [B, LOSS] int32
    loss_weight_ptr,  # [B, LOSS] fp32
    SLOTS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    ENCODER: tl.constexpr,
    ENCODER_MASKED: tl.constexpr,
    DECODER: tl.constexpr,
    DECODER_MASKED: tl.constexpr,
    LOSS_OVER_ALL: tl.constexpr,
    SKIP_SEEN: tl.constexpr,
    VISIBLE: tl.constexpr,
    DECODED: tl.constexpr,
    LOSS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_SPACE: tl.constexpr,
    BLOCK_SLOTS: tl.constexpr,
):
    SPACE: tl.constexpr = HEIGHT * WIDTH
    i_clip = tl.program_id(0).to(tl.int64)
    seed = tl.load(seeds_ptr + i_clip)
    o_token = tl.arange(0, BLOCK)  # [BLOCK]
    m_token = o_token < SLOTS * SPACE
    m_seen = m_token & _chosen_tokens(
        seed,
        o_token,
        _ENCODER_STREAM,
        ENCODER,
        ENCODER_MASKED,
        SLOTS,
        SPACE,
        BLOCK,
        BLOCK_SPACE,
        BLOCK_SLOTS,
    )
    m_unseen = m_token & (m_seen == 0)
    if DECODER == "none":
        m_kept = m_unseen
    elif DECODER == "running-cell":
        # 2x2 cells, positions in row-major order; the masked run moves on by one each slot.
        pattern = (_stream_key(seed, _DECODER_STREAM) >> 30).to(tl.int32)
        place = o_token // WIDTH % HEIGHT % 2 * 2 + o_token % WIDTH % 2
        place += o_token // SPACE + 1 + pattern
        m_kept = m_token & (place % 4 >= DECODER_MASKED)
    else:
        m_kept = m_token & _chosen_tokens(
            seed,
            o_token,
            _DECODER_STREAM,
            DECODER,
            DECODER_MASKED,
            SLOTS,
            SPACE,
            BLOCK,
            BLOCK_SPACE,
            BLOCK_SLOTS,
        )
    if SKIP_SEEN:
        m_kept = m_kept & m_unseen
    m_loss = m_kept if LOSS_OVER_ALL else m_kept & m_unseen
    _store_compact(visible_ptr + i_clip * VISIBLE, m_seen, o_token, VISIBLE, BLOCK)
    p_decoder = decoder_ptr + i_clip * DECODED
    slot, decoder_count = _store_compact(p_decoder, m_kept, o_token, DECODED, BLOCK)
    tl.store(decoder_count_ptr + i_clip, decoder_count)
    _, loss_count = _store_compact(loss_slot_ptr + i_clip * LOSS, m_loss, slot, LOSS, BLOCK)
    for start in range(0, LOSS, BLOCK):
        o_entry = start + o_token
        p_weight = loss_weight_ptr + i_clip * LOSS + o_entry
        tl.store(p_weight, (o_entry < loss_count).to(tl.float32), mask=o_entry < LOSS)


def _blocks(slots: int, height: int, width: int) -> tuple[dict[str, int], int]:
    """The kernel's block sizes, and its warps."""
    blocks = {
        "BLOCK": power_of_2(slots * height * width),
        "BLOCK_SPACE": power_of_2(height * width),
        "BLOCK_SLOTS": power_of_2(slots),
    }
    return blocks, max(1, min(blocks["BLOCK"] // LAUNCH.tokens_per_warp, LAUNCH.most_warps))


def mask_indices(args: Arguments) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(visible [B, V], decoder [B, M], decoder_count [B], loss_slot [B, P], loss_weight [B, P]).

    Equal to the reference bit for bit. `seeds` is copied if it is not contiguous.
    """
    seeds, b = args.seeds, args.seeds.shape[0]
    seen, decoding, in_loss = args.visible_tokens, args.decoder_tokens, args.loss_tokens
    visible, decoded, decoder_count, loss_slot = (
        torch.empty(shape, dtype=torch.int32, device=seeds.device)
        for shape in ((b, seen), (b, decoding), (b,), (b, in_loss))
    )
    loss_weight = torch.empty((b, in_loss), dtype=torch.float32, device=seeds.device)
    if b == 0:
        return visible, decoded, decoder_count, loss_slot, loss_weight
    blocks, num_warps = _blocks(args.slots, args.height, args.width)
    with torch.cuda.device_of(seeds):
        mask_indices_kernel[(b,)](
            seeds.contiguous(),
            visible,
            decoded,
            decoder_count,
            loss_slot,
            loss_weight,
            SLOTS=args.slots,
            HEIGHT=args.height,
            WIDTH=args.width,
            ENCODER=args.encoder,
            ENCODER_MASKED=args.encoder_masked,
            DECODER=args.decoder,
            DECODER_MASKED=args.decoder_masked,
            LOSS_OVER_ALL=args.loss_over_all,
            SKIP_SEEN=args.skip_seen,
            VISIBLE=seen,
            DECODED=decoding,
            LOSS=in_loss,
            **blocks,
            num_warps=num_warps,
            num_stages=LAUNCH.num_stages,
        )
    return visible, decoded, decoder_count, loss_slot, loss_weight
