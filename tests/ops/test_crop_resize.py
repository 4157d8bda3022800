"""Crop and resize: Pillow's bits, a float64 truth, layouts, refusals."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.backends import KERNELS, NATIVE
from videomae_fast.data import multi_scale_box
from videomae_fast.data.views.crops import OFFSETS, SCALE_PAIRS
from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import crop_resize
from videomae_fast.ops.crop_plan import PRECISION, filter_table

IMPLS = ["reference", "pillow", NATIVE]
# width and height of a frame, box (left, top, width, height), size (height, width): shrinking,
# enlarging, one of both, neither; one pixel; more weights than have a loop of their own
CASES = [
    ((90, 70), (3, 5, 80, 60), (32, 48)),
    ((40, 30), (0, 0, 40, 30), (61, 77)),
    ((50, 60), (9, 1, 20, 57), (31, 33)),
    ((50, 60), (9, 1, 41, 20), (31, 33)),
    ((50, 40), (2, 3, 33, 31), (31, 33)),
    ((50, 40), (2, 3, 33, 30), (31, 33)),
    ((50, 40), (2, 3, 30, 31), (31, 33)),
    ((7, 5), (6, 4, 1, 1), (3, 20)),
    ((1, 1), (0, 0, 1, 1), (1, 1)),
    ((300, 200), (1, 0, 299, 200), (7, 9)),
    ((300, 9), (0, 0, 300, 9), (9, 100)),
]


def random_clip(width: int, height: int, frames: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, height, width, 3), dtype=torch.uint8, generator=generator)


def pillow_across_then_down(clip, box, size):
    """Pillow's result, a pass at a time: its order does not depend on its version then."""
    x, y, w, h = box
    out = []
    for frame in clip.numpy():
        image = Image.fromarray(frame).crop((x, y, x + w, y + h))
        image = image.resize((size[1], h), Image.Resampling.BILINEAR)
        out.append(np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR)))
    return torch.from_numpy(np.stack(out))


def pillow_at_once(clip, box, size):
    x, y, w, h = box
    out = []
    for frame in clip.numpy():
        image = Image.fromarray(frame).crop((x, y, x + w, y + h))
        out.append(np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR)))
    return torch.from_numpy(np.stack(out))


def triangle(length: int, size: int) -> torch.Tensor:
    """The filter as a dense matrix, float64 [size, length], from its definition."""
    scale = length / size
    centre = (torch.arange(size).double() + 0.5)[:, None] * scale
    distance = (torch.arange(length).double() + 0.5 - centre).abs() / max(scale, 1.0)
    weight = (1 - distance).clamp(min=0)
    return weight / weight.sum(1, keepdim=True)


def exact(clip, box, size):
    """The truth in float64: both passes, nothing rounded."""
    x, y, w, h = box
    pixels = clip[:, y : y + h, x : x + w].double()
    return torch.einsum("Yy,Xx,tyxc->tYXc", triangle(h, size[0]), triangle(w, size[1]), pixels)


def one_view(clip, box, size, flip=0, impl="auto"):
    return crop_resize([clip], torch.tensor([[0, *box, flip]]), size, impl=impl)[0]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("frame", "box", "size"), CASES, ids=str)
def test_the_bits_are_pillows(frame, box, size, impl):
    clip = random_clip(*frame)
    before = clip.clone()
    out = one_view(clip, box, size, impl=impl)
    assert torch.equal(out, pillow_across_then_down(clip, box, size))
    assert (out.double() - exact(clip, box, size)).abs().max() <= 1.001
    flipped = one_view(clip, box, size, 1, impl)
    assert torch.equal(flipped, out.flip(2))
    assert out.is_contiguous()
    assert torch.equal(clip, before)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("level", [0, 1, 127, 254, 255])
def test_a_grey_level_stays_what_it_is(level, impl):
    clip = torch.full((1, 61, 83, 3), level, dtype=torch.uint8)
    for size in ((17, 23), (100, 90), (2, 3)):
        assert (one_view(clip, (1, 2, 80, 57), size, impl=impl) == level).all()


@pytest.mark.parametrize(("width", "height"), [(340, 256), (256, 340), (320, 240), (299, 299)])
def test_every_official_crop_is_within_one_level(width, height):
    """Boxes of a video size in one call, against Pillow at once, whatever its version.

    From version 13 on it begins with the height where that shrinks more than the width.
    """
    clip = random_clip(width, height, frames=1)
    size = (224, 224)
    boxes = {
        multi_scale_box(width, height, size, pair, offset)
        for pair, offset in itertools.product(range(len(SCALE_PAIRS)), range(0, len(OFFSETS), 4))
    }
    views = torch.tensor([[0, *box, 0] for box in sorted(boxes)])
    out = crop_resize([clip], views, size)
    for view, result in zip(views, out, strict=True):
        box = tuple(view[1:5].tolist())
        difference = (result.int() - pillow_at_once(clip, box, size).int()).abs()
        assert difference.max() <= (1 if box[3] > max(box[2], 224) else 0)


@pytest.mark.parametrize("impl", [NATIVE])
def test_the_reference_on_random_boxes(impl):
    random = np.random.default_rng(0)
    for seed in range(60):
        width, height = random.integers(1, 120, 2).tolist()
        size = tuple(random.integers(1, 90, 2).tolist())
        clip, views = random_clip(width, height, 1, seed), []
        for flip in (0, 1):
            w, h = random.integers(1, width + 1), random.integers(1, height + 1)
            left, top = random.integers(0, width - w + 1), random.integers(0, height - h + 1)
            views.append([0, int(left), int(top), int(w), int(h), flip])
        views = torch.tensor(views)
        ours = crop_resize([clip], views, size, impl=impl)
        assert torch.equal(ours, crop_resize([clip], views, size, impl="reference")), views


@pytest.mark.parametrize("impl", IMPLS)
def test_clips_of_several_sizes(impl):
    """Views in any order of clips, clips that no view takes, crops and slices read in place."""
    whole = random_clip(64, 48, frames=5)
    channels_first = random_clip(31, 22, 2).permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    clips = [random_clip(40, 30), whole[1::2, 3:40, 5:], channels_first, random_clip(9, 9)]
    assert not any(clip.is_contiguous() for clip in clips[1:3])
    views = torch.tensor(
        [[1, 2, 1, 50, 30, 0], [0, 0, 0, 40, 30, 1], [2, 1, 1, 30, 20, 0], [1, 0, 0, 20, 20, 1]]
    )
    out = crop_resize(clips, views, (20, 24), impl=impl)
    assert out.shape == (4, 2, 20, 24, 3)
    for view, result in zip(views.tolist(), out, strict=True):
        alone = pillow_across_then_down(clips[view[0]].contiguous(), view[1:5], (20, 24))
        assert torch.equal(result, alone.flip(2) if view[5] else alone)


@pytest.mark.parametrize("impl", IMPLS)
def test_no_views(impl):
    none = torch.zeros((0, 6), dtype=torch.int64)
    assert crop_resize([random_clip(8, 8)], none, (4, 5), impl=impl).shape == (0, 2, 4, 5, 3)


@pytest.mark.parametrize(
    ("length", "size"), [(1, 1), (1, 7), (7, 1), (224, 224), (256, 224), (168, 224), (4000, 224)]
)
def test_filter_table(length, size):
    """Every weight lies within the source, and all of a pixel's add up to one."""
    table = filter_table(length, size).long()
    first, weight = table[:, 0], table[:, 1:]
    assert first.min() >= 0
    assert (first + weight.shape[1]).max() <= length
    assert weight.min() >= 0
    assert (weight.sum(1) - 2**PRECISION).abs().max() <= weight.shape[1]
    dense = torch.zeros(size, length, dtype=torch.int64)
    dense.scatter_(1, first[:, None] + torch.arange(weight.shape[1]), weight)
    truth = triangle(length, size) * 2**PRECISION
    assert (dense - truth).abs().max() <= 0.501
    assert weight.any(0).all()  # no column of zeros alone


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("view", "says"),
    [
        ([0, -1, 0, 5, 5, 0], "lies outside frames of 10 x 8"),
        ([0, 6, 0, 5, 5, 0], "lies outside"),
        ([0, 0, 4, 5, 5, 0], "lies outside"),
        ([0, 0, 0, 0, 5, 0], "at least one pixel"),
        ([1, 0, 0, 5, 5, 0], "no clip 1"),
        ([-1, 0, 0, 5, 5, 0], "no clip -1"),
        ([0, 0, 0, 5, 5, 2], "flip must be 0 or 1"),
    ],
)
def test_wrong_views_are_named(view, says, impl):
    views = torch.tensor([[0, 0, 0, 10, 8, 1], view])
    with pytest.raises(ValueError, match=f"view 1: .*{says}"):
        crop_resize([random_clip(10, 8)], views, (4, 4), impl=impl)


def test_wrong_arguments():
    clip, views = random_clip(8, 8), torch.tensor([[0, 0, 0, 8, 8, 0]])
    for clips in ([clip.float()], [clip[0]], [clip[..., :2]], [clip, clip[:1]], []):
        with pytest.raises(ValueError, match="clips must"):
            crop_resize(clips, views, (4, 4))
    for wrong in (views.int(), views[:, :5], views[0]):
        with pytest.raises(ValueError, match="views must be int64"):
            crop_resize([clip], wrong, (4, 4))
    with pytest.raises(ValueError, match="at least one pixel"):
        crop_resize([clip], views, (0, 4))
    with pytest.raises(ValueError, match="shrinks by more than 8000 times"):
        filter_table(40_000, 2)
    with pytest.raises(BackendUnavailableError, match="Triton needs CUDA tensors"):
        crop_resize([clip], views, (4, 4), impl="triton")


@pytest.mark.parametrize("impl", IMPLS)
def test_the_result_goes_where_it_is_wanted(impl):
    clips, views = [random_clip(40, 30)], torch.tensor([[0, 1, 2, 33, 20, 1], [0, 0, 0, 24, 30, 0]])
    memory = torch.full((3, 2, 24, 20, 3), 77, dtype=torch.uint8)
    out = crop_resize(clips, views, (24, 20), impl=impl, out=memory[1:])
    assert out.data_ptr() == memory[1:].data_ptr()
    assert torch.equal(memory[1:], crop_resize(clips, views, (24, 20), impl="reference"))
    assert (memory[0] == 77).all()


def test_an_out_that_does_not_fit():
    clip, views = random_clip(10, 8), torch.tensor([[0, 0, 0, 4, 4, 0]])
    fits = torch.empty((1, 2, 4, 4, 3), dtype=torch.uint8)
    crop_resize([clip], views, (4, 4), out=fits)
    for out in (
        fits.int(),
        fits[:0],
        fits.expand(2, -1, -1, -1, -1),
        fits.transpose(2, 3),
        fits.to("meta"),
    ):
        with pytest.raises(ValueError, match=r"out must be uint8 \[1, 2, 4, 4, 3\], contiguous"):
            crop_resize([clip], views, (4, 4), out=out)


# Rows: clip, left, top, width, height, flip. Shrinking, enlarging, both, neither, one pixel.
VIEWS = torch.tensor(
    [
        [0, 3, 1, 30, 15, 0],
        [1, 0, 0, 9, 23, 1],
        [0, 0, 0, 40, 18, 1],
        [1, 2, 2, 5, 3, 0],
        [1, 1, 4, 7, 7, 1],
        [0, 39, 17, 1, 1, 0],
    ]
)


def two_clips(device: str, frames: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(0, 256, (frames, h, w, 3), dtype=torch.uint8, generator=generator).to(device)
        for h, w in ((18, 40), (23, 9))
    ]


@pytest.mark.parametrize("impl", KERNELS)
@pytest.mark.parametrize("size", [(7, 7), (3, 50), (1, 1)], ids=str)
def test_equals_the_reference(impl: str, size: tuple[int, int], device: str) -> None:
    sources = two_clips(device)
    out = crop_resize(sources, VIEWS, size, impl=impl)
    assert torch.equal(out, crop_resize(sources, VIEWS, size, impl="reference"))
    again = crop_resize(sources, VIEWS.to(device), size, impl=impl)
    assert torch.equal(out, again)


@pytest.mark.parametrize("impl", KERNELS)
def test_layouts(impl: str, device: str) -> None:
    """Several frames; crops and time slices read in place, channels first copied."""
    first, second = two_clips(device, 5)
    channels_first = second[::2].permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    sources = [first[::2, 2:, 4:38], channels_first]
    assert not any(source.is_contiguous() for source in sources)
    views = torch.tensor([[1, 0, 2, 9, 20, 0], [0, 1, 1, 33, 15, 1]])
    out = crop_resize(sources, views, (5, 6), impl=impl)
    assert torch.equal(out, crop_resize(sources, views, (5, 6), impl="reference"))


@pytest.mark.parametrize("impl", KERNELS)
def test_nothing_asked_for(impl: str, device: str) -> None:
    assert crop_resize(two_clips(device), VIEWS[:0], (4, 4), impl=impl).shape == (0, 1, 4, 4, 3)


def test_a_wrong_table_is_noticed(
    interpreted: None, sabotage: Callable[..., None], device: str
) -> None:
    """Negative control: one weight of 22 bits off by a quarter of a grey level's."""
    from videomae_fast.kernels import crop_resize as kernel

    sources = two_clips(device)
    reference = crop_resize(sources, VIEWS, (7, 7), impl="reference")

    def changed(tables: torch.Tensor) -> torch.Tensor:
        tables = tables.clone()
        tables[1] += 2**14
        return tables

    sabotage(kernel, "crop_resize_kernel", 1, changed)
    assert not torch.equal(crop_resize(sources, VIEWS, (7, 7), impl="triton"), reference)
