"""RandAugment's operations: Pillow's bytes, and the official training chain."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from safetensors import safe_open

from tests.support.official_operations import OURS
from videomae_fast.ops.rand_augment import rand_augment
from videomae_fast.ops.resized_view import resized_view

GOLDEN = Path(__file__).parents[1] / "golden"


def _golden(name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    with safe_open(GOLDEN / f"downstream_{name}.safetensors", "pt") as file:
        info = json.loads(file.metadata()["info"])
        return info, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


OPS_INFO, OPS = _golden("randaugment_ops")
CHAIN_INFO, CHAIN = _golden("augment")


def _operation(name: str, arguments: list[float]) -> tuple[str, float | None]:
    return OURS[name], arguments[0] if arguments else None


IMPLS = ["reference", "native"]
pytestmark = pytest.mark.without_gpu


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("key", [key for key in OPS_INFO["arguments"] if key.split("/")[0] in OURS])
def test_each_operation_gives_the_official_bytes(key: str, impl: str) -> None:
    operation = _operation(key.split("/")[0], OPS_INFO["arguments"][key])
    found = rand_augment(OPS["image"][None], [operation], impl=impl)[0]
    assert torch.equal(found, OPS[key])


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("k", range(len(CHAIN_INFO["cases"])))
def test_the_training_chain_is_the_official_one(k: int, impl: str) -> None:
    case = CHAIN_INFO["cases"][k]
    operations = [_operation(one["op"], one["args"]) for one in case["ops"] if one["applied"]]
    frames = rand_augment(CHAIN["frames"], operations, impl=impl)
    assert torch.equal(frames, CHAIN[f"{k}.after_randaugment"])
    side = CHAIN_INFO["crop_size"]
    crop = tuple(case["crop_top_left_height_width"])
    view = resized_view(frames, crop, (side, side), flip=case["flipped"], impl=impl)
    wanted = CHAIN[f"{k}.output"].permute(1, 2, 3, 0).clone()
    height, width = case["erase_height_width"]
    top, left = case["erase_top_left"]
    hole = slice(top, top + height), slice(left, left + width)
    assert (wanted[:, *hole] - view[:, *hole]).abs().mean() > 0.5  # noise is there
    wanted[:, *hole] = view[:, *hole]
    torch.testing.assert_close(view, wanted, rtol=0, atol=1e-5)


def _pillow(name: str, argument: float | None, image: Image.Image) -> Image.Image:
    w, h = image.size
    a = 0.0 if argument is None else argument
    matrix = {
        "shear_x": (1, a, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, a, 1, 0),
        "translate_x": (1, 0, a * w, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, a * h),
    }
    fill = (128, 128, 128)
    if name in matrix:
        return image.transform(
            image.size, Image.Transform.AFFINE, matrix[name], Image.Resampling.BICUBIC,
            fillcolor=fill,
        )  # fmt: skip
    if name == "rotate":
        return image.rotate(a, resample=Image.Resampling.BICUBIC, fillcolor=fill)
    if name in ("color", "contrast", "brightness", "sharpness"):
        return getattr(ImageEnhance, name.title())(image).enhance(a)
    plain = {
        "auto_contrast": ImageOps.autocontrast,
        "equalize": ImageOps.equalize,
        "invert": ImageOps.invert,
    }
    return plain[name](image) if name in plain else ImageOps.solarize(image, int(a))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (3, 3), (37, 23), (64, 128), (40, 300)])
@pytest.mark.parametrize("kind", ["noise", "dark", "flat", "ramp", "stripes"])
def test_frames_of_all_sizes_give_pillows_bytes(
    size: tuple[int, int], kind: str, impl: str
) -> None:
    h, w = size
    rng = np.random.default_rng(h)
    images = {
        "noise": rng.integers(0, 256, (h, w, 3)),
        "dark": rng.integers(0, 40, (h, w, 3)),
        "flat": np.full((h, w, 3), 77),
        "ramp": np.arange(h * w * 3).reshape(h, w, 3) % 256,
        "stripes": np.repeat(rng.integers(0, 256, (h, 1, 3)), w, 1),
    }
    pixels = images[kind].astype(np.uint8)
    for name, argument in (
        ("auto_contrast", None), ("equalize", None), ("invert", None), ("rotate", 17.3),
        ("rotate", -21.0), ("solarize", 77), ("color", 1.6), ("contrast", 0.37),
        ("contrast", 1.63), ("brightness", 1.7), ("sharpness", 0.3), ("sharpness", 1.9),
        ("shear_x", 0.21), ("shear_y", -0.19), ("translate_x", 0.31), ("translate_y", -0.4),
    ):  # fmt: skip
        wanted = np.asarray(_pillow(name, argument, Image.fromarray(pixels)))
        clip = torch.from_numpy(pixels)[None]
        found = rand_augment(clip, [(name, argument)], impl=impl)[0].numpy()
        assert np.array_equal(found, wanted), name


@pytest.mark.parametrize("impl", IMPLS)
def test_frames_need_not_be_contiguous(impl: str) -> None:
    turned = torch.randint(0, 256, (2, 9, 7, 3), dtype=torch.uint8).transpose(1, 2)
    for name in ("equalize", "auto_contrast", "invert"):
        made = rand_augment(turned, [(name, None)], impl=impl)
        assert torch.equal(made, rand_augment(turned.contiguous(), [(name, None)], impl=impl))


def test_frames_have_their_own_statistics() -> None:
    clip = torch.stack([OPS["image"], OPS["image"] // 3])
    for name in ("auto_contrast", "equalize", "contrast"):
        argument = 1.4 if name == "contrast" else None
        whole = rand_augment(clip, [(name, argument)])
        single = [rand_augment(frame[None], [(name, argument)])[0] for frame in clip]
        assert torch.equal(whole, torch.stack(single))


@pytest.mark.parametrize(
    ("operation", "told"),
    [
        (("blur", 1.0), "unknown operation 'blur'"),
        (("invert", 1.0), "invert takes no argument"),
        (("rotate", None), "rotate takes an argument"),
    ],
)
def test_what_is_no_operation_is_said(operation: tuple[str, float | None], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        rand_augment(OPS["image"][None], [operation])
    with pytest.raises(ValueError, match="must be uint8"):
        rand_augment(OPS["image"][None].float(), [])


def test_crops_outside_of_the_frame_are_refused() -> None:
    frames = torch.zeros(1, 10, 12, 3, dtype=torch.uint8)
    for crop in ((0, 0, 11, 5), (-1, 0, 5, 5), (0, 8, 5, 5), (0, 0, 0, 5)):
        with pytest.raises(ValueError, match="does not lie in"):
            resized_view(frames, crop, (4, 4))


def test_chains_of_operations_are_the_references() -> None:
    """The library joins tables and takes statistics through them."""
    rng = random.Random(0)
    arguments = {
        "auto_contrast": lambda: None, "equalize": lambda: None, "invert": lambda: None,
        "rotate": lambda: rng.uniform(-30, 30), "posterize": lambda: rng.randrange(9),
        "solarize": lambda: rng.randrange(257), "solarize_add": lambda: rng.randrange(111),
        "color": lambda: rng.uniform(0.1, 1.9), "contrast": lambda: rng.uniform(0.1, 1.9),
        "brightness": lambda: rng.uniform(0.1, 1.9), "sharpness": lambda: rng.uniform(0.1, 1.9),
        "shear_x": lambda: rng.uniform(-0.3, 0.3), "shear_y": lambda: rng.uniform(-0.3, 0.3),
        "translate_x": lambda: rng.uniform(-0.5, 0.5),
        "translate_y": lambda: rng.uniform(-0.5, 0.5),
    }  # fmt: skip
    for number in range(150):
        frames, h, w = rng.choice([(1, 1, 1), (2, 3, 7), (3, 20, 31), (2, 33, 17)])
        generator = torch.Generator().manual_seed(number)
        most = rng.choice([256, 40])
        clip = torch.randint(0, most, (frames, h, w, 3), dtype=torch.uint8, generator=generator)
        names = [rng.choice(list(arguments)) for _ in range(rng.randrange(5))]
        chain = [(name, arguments[name]()) for name in names]
        found = [rand_augment(clip, chain, impl=impl) for impl in IMPLS]
        assert torch.equal(*found), chain


def test_views_of_random_crops_are_the_references() -> None:
    rng = random.Random(1)
    clip = torch.randint(0, 256, (2, 33, 47, 3), dtype=torch.uint8)
    for _ in range(40):
        height, width = rng.randrange(1, 34), rng.randrange(1, 48)
        crop = (rng.randrange(34 - height), rng.randrange(48 - width), height, width)
        size = rng.randrange(1, 60), rng.randrange(1, 60)
        flip = rng.random() < 0.5
        found = [resized_view(clip, crop, size, flip=flip, impl=impl) for impl in IMPLS]
        torch.testing.assert_close(*found, rtol=0, atol=1.5e-5)
