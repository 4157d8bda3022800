"""Crop and resize: decoded uint8 clips in, the views of all samples out.

A video is decoded once and cropped several times (repeated augmentation). Each view takes a box of
one clip, the same for all its frames, and resizes it by the filter that the official augmentation
uses: Pillow's bilinear one, which is antialiased when it shrinks.

All backends give the same bits: Pillow's integer arithmetic, first across, then down, as Pillow did
it before version 13, also for the official runs. From then on it begins with the height where that
shrinks more than the width, and may then differ by a grey level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.library import custom_op

from videomae_fast.arguments import Arguments
from videomae_fast.ops._declare import launcher, native, plain, register, triton
from videomae_fast.ops._native import crops
from videomae_fast.ops.crop_plan import PRECISION, VIEW_FIELDS, crop_plan, filter_table, read_views
from videomae_fast.ops.registry import Backend


def crop_resize(
    clips: Sequence[Tensor],
    views: Tensor,
    size: tuple[int, int],
    *,
    impl: str = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """The views of a batch of clips, all of one size.

    Args:
        clips: uint8 [T, H, W, 3] each, on one device; T is the same for all, H and W need not be.
            Crops and time slices of larger frames are read in place.
        views: int64 [V, 6], on the CPU, one row per view: number of the clip, left, top, width and
            height of the box in pixels, 1 for a horizontal flip of the result or 0. (A tensor of
            another device is copied to the CPU first, which waits for the device.)
        size: (height, width) of the result in pixels.
        impl: "auto", "triton" (CUDA), "native" (CPU), "pillow" (CPU) or "reference".
        out: where the result goes, of its shape and dtype, contiguous, on the clips' device; else
            memory is allocated.

    Returns:
        uint8 [V, T, height, width, 3], contiguous.

    Raises:
        ValueError: wrong shapes or dtypes, a box that is empty or leaves its frames, an `out` that
            does not fit.
        BackendUnavailableError: `impl` can't run here.

    Source: GroupMultiScaleCrop in dataset/transforms.py of the official V2 code; Pillow,
    src/libImaging/Resample.c.
    """
    _check(clips, views, size)
    if out is None:
        make = _make if plain(*clips, views) else _CROP_RESIZE
        made: Tensor = make(list(clips), views, size[0], size[1], impl)
        return made
    _check_out(clips, views, size, out)
    write = _write if plain(*clips, views, out) else _CROP_RESIZE_INTO
    write(list(clips), views, out, impl)
    return out


def _check(clips: Sequence[Tensor], views: Tensor, size: tuple[int, int]) -> None:
    if len(clips) == 0:
        raise ValueError("clips must hold at least one clip")
    for clip in clips:
        if clip.ndim != 4 or clip.shape[-1] != 3 or clip.dtype != torch.uint8:
            raise ValueError(
                f"clips must be uint8 [T, H, W, 3], got {clip.dtype} {list(clip.shape)}"
            )
        if clip.shape[0] != clips[0].shape[0] or clip.device != clips[0].device:
            raise ValueError(
                f"clips must have the same number of frames and lie on one device, got "
                f"{clips[0].shape[0]} on {clips[0].device} and {clip.shape[0]} on {clip.device}"
            )
    if views.ndim != 2 or views.shape[1] != VIEW_FIELDS or views.dtype != torch.int64:
        raise ValueError(
            f"views must be int64 [V, {VIEW_FIELDS}], got {views.dtype} {list(views.shape)}"
        )
    if min(size) < 1:
        raise ValueError(f"size {tuple(size)} must be at least one pixel")


_Write = Callable[[Sequence[Tensor], Tensor, Tensor], None]
"""Of clips and views to where the views go."""


def _check_out(clips: Sequence[Tensor], views: Tensor, size: tuple[int, int], out: Tensor) -> None:
    shape = (views.shape[0], clips[0].shape[0], *size, 3)
    if (
        out.shape != shape
        or out.dtype != torch.uint8
        or out.device != clips[0].device
        or not out.is_contiguous()
    ):
        raise ValueError(
            f"out must be uint8 {list(shape)}, contiguous, on {clips[0].device}, got {out.dtype} "
            f"{list(out.shape)} on {out.device}, strides {out.stride()}"
        )


def _made_by(write: _Write) -> Callable[[Arguments], Tensor]:
    """A backend's `run`, whose result has the memory that is given, or its own."""

    def run(args: Arguments) -> Tensor:
        out: Tensor | None = args.out
        if out is None:
            shape = (len(args.views), args.clips[0].shape[0], args.height, args.width, 3)
            out = torch.empty(shape, dtype=torch.uint8, device=args.clips[0].device)
        write(args.clips, args.views, out)
        return out

    return run


def _each_view(resize: Callable[[Tensor, int, int], Tensor]) -> _Write:
    """Writes the views one by one; `resize` takes a box's frames, the height and the width."""

    def run(clips: Sequence[Tensor], views: Tensor, out: Tensor) -> None:
        for number, view in enumerate(read_views(views, clips)):
            box = clips[view.clip][
                :, view.top : view.top + view.height, view.left : view.left + view.width
            ]
            resized = resize(box, out.shape[2], out.shape[3])
            out[number] = resized.flip(2) if view.flip else resized

    return run


def _planned(write: Callable[..., None]) -> _Write:
    """Writes the views in one call of ``write(plan's views, plan's tables, out)``."""

    def run(clips: Sequence[Tensor], views: Tensor, out: Tensor) -> None:
        clips = [_dense(clip) for clip in clips]
        write(*crop_plan(clips, views, out.shape[2], out.shape[3]), out)

    return run


def _by_torch(box: Tensor, height: int, width: int) -> Tensor:
    return _resample(_resample(box.int(), 2, width), 1, height)


def _resample(frames: Tensor, dim: int, size: int) -> Tensor:
    """One pass: int32 [T, H, W, 3] with values 0..255, along `dim`, to `size` pixels."""
    table = filter_table(frames.shape[dim], size).to(frames.device)
    shape = [size if i == dim else 1 for i in range(4)]
    total = torch.full((), 1 << (PRECISION - 1), dtype=torch.int32, device=frames.device)
    for k in range(table.shape[1] - 1):
        weight = table[:, 1 + k].reshape(shape)
        total = total + weight * frames.index_select(dim, table[:, 0] + k)
    return total >> PRECISION


def _by_pillow(box: Tensor, height: int, width: int) -> Tensor:
    """Pillow's own, a pass at a time: the order of both at once depends on its version."""
    from PIL import Image

    resized = []
    for frame in box.numpy():
        image = Image.fromarray(np.ascontiguousarray(frame))
        for size in ((width, image.height), (width, height)):
            if image.size != size:
                image = image.resize(size, Image.Resampling.BILINEAR)
        resized.append(np.asarray(image))
    return torch.from_numpy(np.stack(resized))


def _dense(clip: Tensor) -> Tensor:
    """The clip itself if each row's pixels are adjacent, or a copy."""
    return clip if clip.stride()[2:] == (3, 1) else clip.contiguous()


def _triton_unfit(clips: Sequence[Tensor]) -> str | None:
    if any(clip.shape[1] * clip.stride(1) >= 2**31 for clip in clips):
        return "the kernel takes frames of less than 2 GiB"
    return None


_KERNEL = "crop_resize", "crop_resize"
_OP = register(
    "crop_resize",
    ("clips", "views", "height", "width", "out"),
    triton=replace(
        triton(*_KERNEL, unfit=_triton_unfit, placed=1), run=_made_by(_planned(launcher(*_KERNEL)))
    ),
    native=native(_made_by(_planned(crops.crop_resize)), placed=1),
    pillow=Backend(_made_by(_each_view(_by_pillow)), "Pillow", "cpu", placed=1, named=True),
    reference=Backend(_made_by(_each_view(_by_torch)), "the reference", named=True),
)


def _make(*args: Any) -> Tensor:
    made: Tensor = _OP.choose(args[-1], *args[:-1]).run(*args[:-1], None)
    return made


def _write(clips: Sequence[Tensor], views: Tensor, out: Tensor, impl: str) -> None:
    args = (clips, views, *out.shape[2:4], out)
    _OP.choose(impl, *args).run(*args)


# Registered by hand: the reference reads its boxes, which fakes lack. There is no gradient.
_CROP_RESIZE = custom_op(
    "videomae_fast::crop_resize",
    _make,
    mutates_args=(),
    schema="(Tensor[] clips, Tensor views, SymInt height, SymInt width, str impl) -> Tensor",
)
_CROP_RESIZE.register_fake(
    lambda clips, views, *size_and_impl: clips[0].new_empty(
        (views.shape[0], clips[0].shape[0], *size_and_impl[:2], 3)
    )
)
_CROP_RESIZE_INTO = custom_op("videomae_fast::crop_resize_into", _write, mutates_args=("out",))
_CROP_RESIZE_INTO.register_fake(lambda *_: None)
