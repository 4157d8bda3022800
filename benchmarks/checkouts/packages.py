"""Packages that the checkouts import and that can't be had beside any build of torch.

timm and torchvision require a build of torch of their own, deepspeed a CUDA toolchain, and some
modules are gone from newer versions; what the scripts call of CUDA without asking has no meaning on
a CPU. Each has our own code in its place, in the child process that runs a script, and only as far
as the scripts use it. An installed torchvision is used instead.
"""

from __future__ import annotations

import contextlib
import importlib.util
import random
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.checkouts import training_packages as training
from benchmarks.official import timm_stand_in

# Of the extra `checkouts`: {module: package}
NEEDED = {
    "decord": "decord", "einops": "einops", "cv2": "opencv-python-headless", "pandas": "pandas",
    "scipy": "scipy", "tensorboardX": "tensorboardX",
}  # fmt: skip


# Modules that newer versions of a package no longer have, with what the checkouts import of them
GONE: dict[str, dict[str, Any]] = {
    "torch._six": {"inf": torch.inf},
    "numpy.lib.function_base": {"disp": print},
}


def missing() -> list[str]:
    """Packages of the extra that are not installed."""
    return [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]


def install(device: str, later_timm: bool = False) -> list[str]:
    """Puts the stand-ins in place, for good: only a child process calls this.

    Args:
        device: "cpu" or "cuda".
        later_timm: drop path draws as timm does since 0.5, not as 0.4.12.

    Returns:
        The names of what stands in.
    """
    modules = {**_timm(later_timm), **GONE, "deepspeed": {}}
    if importlib.util.find_spec("torchvision") is None:
        modules.update(_torchvision())
    for name, content in modules.items():
        _module(name, content)
    if device == "cpu":
        _without_cuda()
    return sorted(modules) + (["torch.cuda"] if device == "cpu" else [])


def _module(name: str, content: dict[str, Any]) -> None:
    module = ModuleType(name, "A stand-in of videomae-fast's benchmarks.")
    module.__path__ = []
    module.__spec__ = ModuleSpec(name, None, is_package=True)
    vars(module).update(content)
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, module)


def _timm(later: bool) -> dict[str, dict[str, Any]]:
    found = {
        name: {function.__name__: function for function in functions}
        for name, functions in timm_stand_in.CONTENT.items()
    }
    if later:
        found["timm.models.layers"]["drop_path"] = timm_stand_in.drop_path_since_0_5
    found["timm.models"]["create_model"] = training.create_model
    found["timm.models.registry"]["register_model"] = training.register_model
    constants = {
        "IMAGENET_DEFAULT_MEAN": training.IMAGENET_DEFAULT_MEAN,
        "IMAGENET_DEFAULT_STD": training.IMAGENET_DEFAULT_STD,
    }
    losses = (training.LabelSmoothingCrossEntropy, training.SoftTargetCrossEntropy)
    tools = (training.ModelEma, training.accuracy, training.get_state_dict)
    return {
        **found,
        "timm.data": {"Mixup": training.Mixup},
        "timm.data.constants": constants,
        "timm.data.mixup": {"Mixup": training.Mixup},
        "timm.loss": {one.__name__: one for one in losses},
        "timm.utils": {one.__name__: one for one in tools},
        "timm.optim": {},
        **{
            f"timm.optim.{module}": {kind.__name__: kind}
            for module, kind in training.OPTIMIZERS.items()
        },
    }


class Compose:
    """Applies transforms one after the other."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = transforms

    def __call__(self, x: Any) -> Any:
        for transform in self.transforms:
            x = transform(x)
        return x


class ToTensor:
    """A picture or uint8 array [H, W, C] to fp32 [C, H, W] in [0, 1]."""

    def __call__(self, picture: Any) -> Tensor:
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div(255)


class ToPILImage:
    """A uint8 array [H, W, C] to a picture."""

    def __call__(self, array: Any) -> Image.Image:
        return Image.fromarray(np.asarray(array))


class Normalize:
    """Takes a mean out of each channel of [C, ...] and divides by a standard deviation."""

    def __init__(self, mean: Any, std: Any) -> None:
        self.mean, self.std = torch.as_tensor(mean), torch.as_tensor(std)

    def __call__(self, x: Tensor) -> Tensor:
        shape = (-1,) + (1,) * (x.ndim - 1)
        return (x - self.mean.view(shape)) / self.std.view(shape)


class RandomHorizontalFlip:
    """Mirrors all pictures of a clip, or none."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, clip: Any) -> Any:
        if random.random() >= self.p:
            return clip
        if isinstance(clip, list):
            return [one.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for one in clip]
        return clip.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _torchvision() -> dict[str, dict[str, Any]]:
    def refuse(*args: Any, **settings: Any) -> Any:
        raise NotImplementedError("this part of torchvision has no stand-in")

    kinds = (Compose, ToTensor, ToPILImage, Normalize, RandomHorizontalFlip)
    others = ("CenterCrop", "Grayscale", "Resize", "RandomVerticalFlip", "ColorJitter")
    transforms = {kind.__name__: kind for kind in kinds} | dict.fromkeys(others, refuse)
    return {
        "torchvision": {},
        "torchvision.ops": dict.fromkeys(("roi_align", "roi_pool"), refuse),
        "torchvision.transforms": transforms,
        "torchvision.transforms.functional": {"resized_crop": refuse},
    }


class _NoAutocast(contextlib.nullcontext[None]):
    """What ``torch.cuda.amp.autocast`` is without CUDA, for any settings."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__()


def _without_cuda() -> None:
    """What the scripts call of CUDA, without a device: nothing happens, in fp32."""
    cuda: Any = torch.cuda
    cuda.synchronize = cuda.empty_cache = lambda *args: None
    cuda.amp.autocast = _NoAutocast
    cuda.amp.GradScaler = lambda *args, **settings: torch.amp.GradScaler("cpu")
    tensor: Any = torch.Tensor
    module: Any = nn.Module
    tensor.cuda = module.cuda = lambda self, *args, **settings: self
    distributed: Any = torch.distributed
    distributed.barrier = lambda *args, **settings: None
