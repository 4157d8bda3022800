"""Training views of a batch: every operation, size and part, against the reference."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from tests.support.backends import KERNELS
from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import AugmentedView, augmented_views, rand_augment, resized_view

# The least, the most and something between of every operation's argument
ARGUMENTS: dict[str, tuple[float | None, ...]] = {
    "auto_contrast": (None,), "equalize": (None,), "invert": (None,),
    "rotate": (-30.0, 0.0, 17.3, 30.0), "posterize": (0.0, 3.0, 8.0),
    "solarize": (0.0, 77.0, 256.0), "solarize_add": (0.0, 50.0, 110.0),
    "color": (0.1, 1.0, 1.9), "contrast": (0.1, 1.63, 1.9), "brightness": (0.1, 1.9),
    "sharpness": (0.1, 1.0, 1.9), "shear_x": (-0.3, 0.0, 0.21), "shear_y": (-0.3, 0.0, 0.3),
    "translate_x": (-0.45, 0.0, 0.31), "translate_y": (-0.4, 0.45, 0.5),
}  # fmt: skip
RAW = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}
"""Statistics by which values are grey levels."""


def clip(height: int, width: int, *, frames: int = 2, most: int = 256, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    shape = (frames, height, width, 3)
    return torch.randint(0, most, shape, dtype=torch.uint8, generator=generator)


def levels(clips, views, size, impl, device):
    """Views as grey levels: with a crop of the view's size nothing is interpolated."""
    found = augmented_views([one.to(device) for one in clips], views, size, impl=impl, **RAW)
    return found.cpu().round().to(torch.uint8)


@pytest.mark.parametrize("impl", KERNELS)
@pytest.mark.parametrize("name", ARGUMENTS)
def test_each_operation_is_the_references(name: str, impl: str, device: str) -> None:
    sizes = [(2, 5, 256), (9, 44, 40)]  # a tile in the interpreter takes 20 ms
    if impl != "triton":
        sizes += [(1, 1, 256), (13, 47, 40), (33, 21, 256), (60, 130, 256)]
    for height, width, most in sizes:
        frames = clip(height, width, frames=1 if impl == "triton" else 3, most=most)
        crop = (0, 0, height, width)
        views = [AugmentedView(0, crop, ((name, one),)) for one in ARGUMENTS[name]]
        found = levels([frames], views, (height, width), impl, device)
        for view, result in zip(views, found, strict=True):
            wanted = rand_augment(frames, view.operations, impl="reference")
            assert torch.equal(result, wanted), (height, width, view.operations)


def chains(number: int, rng: random.Random) -> list[tuple[str, float | None]]:
    names = [rng.choice(list(ARGUMENTS)) for _ in range(number)]
    return [(name, rng.choice(ARGUMENTS[name])) for name in names]


@pytest.mark.parametrize("impl", KERNELS)
def test_chains_on_parts_of_frames_are_the_references(impl: str, device: str) -> None:
    """Only what is read later is made, of several clips of several sizes at once."""
    rng = random.Random(3)
    for number in range(3 if impl == "triton" else 150):
        clips = [clip(21, 44, seed=number), clip(18, 57, most=60, seed=number)]
        size = rng.randrange(1, 16), rng.randrange(1, 30)
        views = []
        for _ in range(4):
            which = rng.randrange(2)
            top = rng.randrange(clips[which].shape[1] - size[0] + 1)
            left = rng.randrange(clips[which].shape[2] - size[1] + 1)
            chain = tuple(chains(rng.randrange(5), rng))
            views.append(AugmentedView(which, (top, left, *size), chain))
        found = levels(clips, views, size, impl, device)
        for view, result in zip(views, found, strict=True):
            top, left, *_ = view.crop
            whole = rand_augment(clips[view.clip], view.operations, impl="reference")
            wanted = whole[:, top : top + size[0], left : left + size[1]]
            assert torch.equal(result, wanted), view


@pytest.mark.parametrize("impl", KERNELS)
def test_views_are_the_references(impl: str, device: str) -> None:
    """Crops that grow and shrink, far enough for the slow way, flips, and operations before."""
    rng = random.Random(4)
    frames = clip(37, 190)
    for _ in range(2 if impl == "triton" else 40):
        size = rng.randrange(1, 40), rng.randrange(1, 40)
        views = []
        for _ in range(3):
            height, width = rng.randrange(1, 38), rng.randrange(1, 191)
            crop = (rng.randrange(38 - height), rng.randrange(191 - width), height, width)
            chain = tuple(chains(rng.randrange(3), rng))
            views.append(AugmentedView(0, crop, chain, flip=rng.random() < 0.5))
        found = augmented_views([frames.to(device)], views, size, impl=impl).cpu()
        wanted = augmented_views([frames], views, size, impl="reference")
        torch.testing.assert_close(found, wanted, rtol=0, atol=3e-5)
        for view, result in zip(views, wanted, strict=True):
            changed = rand_augment(frames, view.operations, impl="reference")
            alone = resized_view(changed, view.crop, size, flip=view.flip, impl="reference")
            assert torch.equal(result, alone)


@pytest.mark.parametrize("impl", ["reference", *KERNELS])
def test_holes_are_noise_and_the_rest_is_kept(impl: str, device: str) -> None:
    frames = clip(40, 50, frames=2).to(device)
    plain = AugmentedView(0, (3, 4, 30, 40), (("invert", None),))
    holed = replace(plain, hole=(5, 7, 20, 24), seed=2**63 - 1)
    other = replace(holed, seed=11)
    views = [plain, holed, other, holed]
    found = augmented_views([frames], views, (32, 48), impl=impl).cpu()
    inside = torch.zeros(32, 48, dtype=torch.bool)
    inside[5:25, 7:31] = True
    assert torch.equal(found[1][:, ~inside], found[0][:, ~inside])
    noise = found[1:3, :, inside]  # 2 x 2 frames x 480 pixels x 3
    assert noise.mean().abs() < 0.05
    assert abs(noise.std() - 1) < 0.05
    assert noise.unique().numel() > 0.95 * noise.numel()  # for each channel, pixel and frame
    assert torch.equal(found[1], found[3])
    assert not torch.equal(found[1], found[2])


@pytest.mark.parametrize("impl", KERNELS)
def test_memory_is_filled_to_its_end_and_no_further(
    impl: str, device: str, poisoned: Callable[..., object]
) -> None:
    views = [AugmentedView(0, (1, 2, 9, 11), (("rotate", 20.0), ("equalize", None)))]
    frames = clip(20, 30).to(device)
    for size in ((1, 1), (7, 43), (5, 16)):
        room = torch.full((3, 2, *size, 3), 7.0, device=device)
        found = augmented_views([frames], views, size, impl=impl, out=room[1:2])
        assert found.data_ptr() == room[1:2].data_ptr()
        assert (room[0] == 7).all()
        assert (room[2] == 7).all()
        assert torch.equal(found, augmented_views([frames], views, size, impl=impl))


@pytest.mark.parametrize("impl", ["reference", *KERNELS])
def test_parts_of_larger_frames_are_read_in_place(impl: str, device: str) -> None:
    whole = clip(30, 40, frames=6).to(device)
    part = whole[::2, 3:25, 5:36]
    views = [AugmentedView(0, (2, 3, 15, 20), (("shear_y", 0.2), ("contrast", 1.5)), flip=True)]
    found = augmented_views([part], views, (8, 9), impl=impl)
    wanted = augmented_views([part.clone()], views, (8, 9), impl=impl)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"clip": 1}, "there are 1 clips, no clip 1"),
        ({"crop": (0, 0, 11, 5)}, r"view 0: crop \(0, 0, 11, 5\) does not lie in"),
        ({"hole": (0, 0, 5, 4)}, r"view 0: hole \(0, 0, 5, 4\) does not lie in"),
        ({"seed": -1}, "seed -1 must be 0 to"),
        ({"operations": (("blur", 1.0),)}, "unknown operation 'blur'"),
        ({"operations": (("rotate", float("nan")),)}, "nan is no number"),
        ({"operations": (("posterize", 9.0),)}, "keeps 0 to 8 bits"),
    ],
)
def test_what_can_not_be_is_said(change: dict[str, object], told: str) -> None:
    view = replace(AugmentedView(0, (0, 0, 5, 5)), **change)
    with pytest.raises(ValueError, match=told):
        augmented_views([clip(10, 12)], [view], (4, 4))


def test_wrong_tensors_are_refused() -> None:
    frames, view = clip(10, 12), AugmentedView(0, (0, 0, 5, 5))
    with pytest.raises(ValueError, match="at least one view"):
        augmented_views([frames], [], (4, 4))
    with pytest.raises(ValueError, match="both must be at least 1"):
        augmented_views([], [view], (4, 4))
    with pytest.raises(ValueError, match="must be uint8"):
        augmented_views([frames.float()], [view], (4, 4))
    with pytest.raises(ValueError, match="the same number of frames"):
        augmented_views([frames, frames[:1]], [view], (4, 4))
    with pytest.raises(ValueError, match="out must be fp32"):
        augmented_views([frames], [view], (4, 4), out=torch.empty(1, 2, 4, 5, 3))
    with pytest.raises(BackendUnavailableError, match="no backend 'pillow'"):
        augmented_views([frames], [view], (4, 4), impl="pillow")
