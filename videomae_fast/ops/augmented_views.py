"""Training views of a batch of clips: RandAugment, crop, resize, flip and hole, from uint8 to fp32.

A video is decoded once and changed several times (repeated augmentation). What was drawn for a view
holds for all its frames. Of every operation only the part of its result is made that is read later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from videomae_fast.arguments import Arguments
from videomae_fast.ops._declare import launcher, native, plain, register, triton
from videomae_fast.ops._native import augment
from videomae_fast.ops.augment_plan import Region, check_operations, operation_rows, rows_tensor
from videomae_fast.ops.patch_gather import IMAGENET_MEAN, IMAGENET_STD
from videomae_fast.ops.rand_augment import changed_by
from videomae_fast.ops.registry import Backend
from videomae_fast.ops.resized_view import resized_view_reference

Rectangle = tuple[int, int, int, int]
"""Top, left, height, width in pixels."""


@dataclass(frozen=True)
class AugmentedView:
    """What is done to a clip for one view.

    Attributes:
        clip: its number.
        crop: of its frames, which is resized to the view.
        operations: of :func:`~videomae_fast.ops.rand_augment.rand_augment`, done before the crop.
        flip: from left to right, after the crop.
        hole: in the view, filled with N(0, 1), a value for each channel, pixel and frame; or None.
        seed: 0 to 2**63 - 1, of what fills the hole.
    """

    clip: int
    crop: Rectangle
    operations: tuple[tuple[str, float | None], ...] = ()
    flip: bool = False
    hole: Rectangle | None = None
    seed: int = 0


def augmented_views(
    clips: Sequence[Tensor],
    views: Sequence[AugmentedView],
    size: tuple[int, int],
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    impl: str = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """The views of a batch of clips, all of one size, normalised.

    Args:
        clips: uint8 [T, H, W, 3] each, on one device; T is the same for all, H and W need not be.
        views: what is done for each view, at least one.
        size: (height, width) of the views in pixels.
        mean: per colour channel, of values in 0..1.
        std: likewise.
        impl: "auto", "triton" (CUDA), "native" (CPU) or "reference". Grey levels after the
            operations are the same, values differ by roundings of fp32. What fills a hole depends
            on the kind of device.
        out: where the views go, of their shape and dtype, contiguous, on the clips' device; else
            memory is allocated.

    Returns:
        fp32 [V, T, height, width, 3], contiguous.

    Raises:
        ValueError: wrong shapes or dtypes, an operation or argument that is none, a crop or hole
            that leaves its frames, an `out` that does not fit.
        BackendUnavailableError: `impl` can't run here.

    Source: dataset/datasets.py (VideoClsDataset), rand_augment.py, video_transforms.py and
    random_erasing.py of the official V2 code.
    """
    _check_clips(clips, size)
    plan, operations = planned(clips, views, size)
    statistics = [float(value) for value in mean], [float(value) for value in std]
    if out is None:
        make = _make if plain(*clips) else _AUGMENTED_VIEWS
        made: Tensor = make(list(clips), plan, operations, *size, *statistics, impl)
        return made
    shape = (len(views), clips[0].shape[0], *size, 3)
    if (
        out.shape != shape
        or out.dtype != torch.float32
        or out.device != clips[0].device
        or not out.is_contiguous()
    ):
        raise ValueError(
            f"out must be fp32 {list(shape)}, contiguous, on {clips[0].device}, got {out.dtype} "
            f"{list(out.shape)} on {out.device}, strides {out.stride()}"
        )
    write = _write if plain(*clips, out) else _AUGMENTED_VIEWS_INTO
    write(list(clips), plan, operations, *statistics, out, impl)
    return out


def _check_clips(clips: Sequence[Tensor], size: tuple[int, int]) -> None:
    if len(clips) == 0 or min(size) < 1:
        raise ValueError(f"{len(clips)} clips, views of {tuple(size)}: both must be at least 1")
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


def planned(
    clips: Sequence[Tensor], views: Sequence[AugmentedView], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The views, int64 [V, 13] (clip, crop, flip, hole, seed, first operation, how many), and their
    operations' rows, fp64 [N, 12], on the CPU."""
    if not views:
        raise ValueError("views must hold at least one view")
    plan: list[list[int]] = []
    rows: list[list[float]] = []
    for number, view in enumerate(views):
        if not 0 <= view.clip < len(clips):
            raise ValueError(f"view {number}: there are {len(clips)} clips, no clip {view.clip}")
        _, height, width, _ = clips[view.clip].shape
        _check_inside(f"view {number}: crop", view.crop, (height, width))
        if view.hole is not None:
            _check_inside(f"view {number}: hole", view.hole, size)
        if not 0 <= view.seed < 2**63:
            raise ValueError(f"view {number}: seed {view.seed} must be 0 to 2**63 - 1")
        check_operations(view.operations)
        hole = view.hole or (0, 0, 0, 0)
        counted = len(rows), len(view.operations)
        plan.append([view.clip, *view.crop, int(view.flip), *hole, view.seed, *counted])
        rows.extend(operation_rows(view.operations, height, width, Region.of(view.crop)))
    return torch.tensor(plan, dtype=torch.int64), rows_tensor(rows)


def _check_inside(what: str, box: Rectangle, frame: tuple[int, int]) -> None:
    top, left, height, width = box
    fits = top + height <= frame[0] and left + width <= frame[1]
    if min(top, left) < 0 or min(height, width) < 1 or not fits:
        raise ValueError(f"{what} {box} does not lie in frames of {frame}")


_One = Callable[
    [Tensor, Tensor, Sequence[int], bool, Sequence[float], Sequence[float], Tensor], None
]


def _room(args: Arguments) -> Tensor:
    """Memory for the views: what is given, or new."""
    if args.out is not None:
        given: Tensor = args.out
        return given
    shape = (len(args.views), args.clips[0].shape[0], args.height, args.width, 3)
    return torch.empty(shape, dtype=torch.float32, device=args.clips[0].device)


def _each_view(write: _One) -> Callable[[Arguments], Tensor]:
    """A backend's `run`: the views one by one, then their holes."""

    def run(args: Arguments) -> Tensor:
        out = _room(args)
        for number, (clip, *view) in enumerate(args.views.tolist()):
            crop, flip, hole, (seed, first, count) = view[:4], view[4], view[5:9], view[9:]
            rows = args.operations[first : first + count]
            write(args.clips[clip], rows, crop, bool(flip), args.mean, args.std, out[number])
            _fill(out[number], hole, seed)
        return out

    return run


def _fill(view: Tensor, hole: Sequence[int], seed: int) -> None:
    top, left, height, width = hole
    if height == 0:
        return
    generator = torch.Generator(view.device).manual_seed(seed)
    shape = (len(view), height, width, 3)
    noise = torch.randn(shape, generator=generator, device=view.device)
    view[:, top : top + height, left : left + width] = noise


def _by_torch(
    frames: Tensor,
    rows: Tensor,
    crop: Sequence[int],
    flip: bool,
    mean: Sequence[float],
    std: Sequence[float],
    out: Tensor,
) -> None:
    for row in rows.tolist():
        frames = changed_by(frames, row)
    _, height, width, _ = out.shape
    out.copy_(resized_view_reference(frames, crop, height, width, flip, mean, std))


def _triton_unfit(clips: Sequence[Tensor]) -> str | None:
    if any(clip.shape[1] * clip.stride(1) >= 2**31 for clip in clips):
        return "the kernels take frames of less than 2 GiB"
    return None


def _at_once(write: Callable[..., None]) -> Callable[[Arguments], Tensor]:
    """A backend's `run` that makes all views in one call."""

    def run(args: Arguments) -> Tensor:
        out = _room(args)
        dense = [clip if clip.stride()[2:] == (3, 1) else clip.contiguous() for clip in args.clips]
        write(dense, args.views, args.operations, args.mean, args.std, out)
        return out

    return run


_KERNEL = "augmented_views", "augmented_views"
_OP = register(
    "augmented_views",
    ("clips", "views", "operations", "height", "width", "mean", "std", "out"),
    triton=replace(
        triton(*_KERNEL, unfit=_triton_unfit, placed=1), run=_at_once(launcher(*_KERNEL))
    ),
    native=native(_each_view(augment.augmented_view), placed=1),
    reference=Backend(_each_view(_by_torch), "the reference", named=True),
)


def _make(*args: Any) -> Tensor:
    made: Tensor = _OP.choose(args[-1], *args[:-1]).run(*args[:-1], None)
    return made


def _write(
    clips: Sequence[Tensor],
    views: Tensor,
    operations: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    out: Tensor,
    impl: str,
) -> None:
    args = (clips, views, operations, *out.shape[2:4], mean, std, out)
    _OP.choose(impl, *args).run(*args)


# Registered by hand, as crop_resize is: the reference reads its plan, which fakes lack.
_AUGMENTED_VIEWS = custom_op(
    "videomae_fast::augmented_views",
    _make,
    mutates_args=(),
    schema=(
        "(Tensor[] clips, Tensor views, Tensor operations, SymInt height, SymInt width, "
        "float[] mean, float[] std, str impl) -> Tensor"
    ),
)
_AUGMENTED_VIEWS.register_fake(
    lambda clips, views, _, *size_and_more: clips[0].new_empty(
        (views.shape[0], clips[0].shape[0], *size_and_more[:2], 3), dtype=torch.float32
    )
)
_AUGMENTED_VIEWS_INTO = custom_op(
    "videomae_fast::augmented_views_into", _write, mutates_args=("out",)
)
_AUGMENTED_VIEWS_INTO.register_fake(lambda *_: None)
