"""What the official scripts use of timm for training, beside what their models import of it.

Like :mod:`benchmarks.official.timm_stand_in`, this is our own code for what timm 0.4.12 does.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGENET_DEFAULT_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEFAULT_STD = (0.229, 0.224, 0.225)
MODELS: dict[str, Callable[..., nn.Module]] = {}


def register_model(function: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Keeps a model's function under its name."""
    MODELS[function.__name__] = function
    return function


def create_model(name: str, pretrained: bool = False, **settings: Any) -> nn.Module:
    """A registered model; settings that are None are left out.

    Raises:
        RuntimeError: no model of this name.
    """
    if name not in MODELS:
        raise RuntimeError(f"unknown model {name}; registered are {sorted(MODELS)}")
    given = {key: value for key, value in settings.items() if value is not None}
    return MODELS[name](pretrained=pretrained, **given)


class Smaller:
    """A model class with other sizes, in the place of the class in its own module."""

    def __init__(self, kind: type[nn.Module], sizes: dict[str, Any]) -> None:
        self.kind, self.sizes = kind, sizes

    def __call__(self, **settings: Any) -> nn.Module:
        return self.kind(**{**settings, **self.sizes})


def shrink(sizes: dict[str, dict[str, Any]]) -> None:
    """Gives the registered models other sizes: {name of their class: {argument: value}}."""
    for function in MODELS.values():
        module = sys.modules[function.__module__]
        for name, changed in sizes.items():
            kind = vars(module).get(name)
            if isinstance(kind, type):
                setattr(module, name, Smaller(kind, changed))


class LabelSmoothingCrossEntropy(nn.Module):
    """Cross entropy with the label's probability spread over all classes by a part."""

    def __init__(self, smoothing: float = 0.1) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits [B, C] and classes [B] to a scalar."""
        logs = F.log_softmax(logits, -1)
        of_label = -logs.gather(-1, target[:, None])[:, 0]
        smooth = -logs.mean(-1)
        return ((1 - self.smoothing) * of_label + self.smoothing * smooth).mean()


class SoftTargetCrossEntropy(nn.Module):
    """Cross entropy with a distribution as the target."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits and probabilities [B, C] to a scalar."""
        return (-target * F.log_softmax(logits, -1)).sum(-1).mean()


class Mixup:
    """Mixes each clip of a batch with the one at the mirrored place, by weight or by a box."""

    def __init__(
        self,
        mixup_alpha: float = 1.0,
        cutmix_alpha: float = 0.0,
        cutmix_minmax: Any = None,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        mode: str = "batch",
        label_smoothing: float = 0.1,
        num_classes: int = 1000,
    ) -> None:
        if mode != "batch" or cutmix_minmax is not None:
            raise NotImplementedError("only mixing by batch, with boxes of any size")
        self.alphas, self.prob, self.switch_prob = (mixup_alpha, cutmix_alpha), prob, switch_prob
        self.smoothing, self.classes = label_smoothing, num_classes

    def __call__(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Clips [B, C, H, W], changed in place, and classes [B] to clips and probabilities."""
        kept, boxed = self._draw()
        if kept < 1 and boxed:
            height, width = x.shape[-2:]
            top, bottom, left, right = _box(height, width, kept)
            x[..., top:bottom, left:right] = x.flip(0)[..., top:bottom, left:right].clone()
            kept = 1 - (bottom - top) * (right - left) / (height * width)
        elif kept < 1:
            x.mul_(kept).add_(x.flip(0).mul(1 - kept))
        spread = self.smoothing / self.classes
        labels = torch.full((len(x), self.classes), spread, device=x.device)
        labels.scatter_(1, target[:, None], 1 - self.smoothing + spread)
        return x, labels * kept + labels.flip(0) * (1 - kept)

    def _draw(self) -> tuple[float, bool]:
        if np.random.rand() >= self.prob:
            return 1.0, False
        mixup, cutmix = self.alphas
        boxed = cutmix > 0 and (mixup <= 0 or np.random.rand() < self.switch_prob)
        alpha = cutmix if boxed else mixup
        return float(np.random.beta(alpha, alpha)), boxed


def _box(height: int, width: int, kept: float) -> tuple[int, int, int, int]:
    share = np.sqrt(1 - kept)
    tall, wide = int(height * share), int(width * share)
    row, column = np.random.randint(0, height), np.random.randint(0, width)
    edges = np.clip([row - tall // 2, row + tall // 2], 0, height).tolist()
    sides = np.clip([column - wide // 2, column + wide // 2], 0, width).tolist()
    return edges[0], edges[1], sides[0], sides[1]


class ModelEma:
    """An exponential moving average of a model's weights, in a copy of the model."""

    def __init__(
        self, model: nn.Module, decay: float = 0.9999, device: str = "", resume: str = ""
    ) -> None:
        if resume:
            raise NotImplementedError("resuming is not needed here")
        self.ema = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.device = decay, device

    def update(self, model: nn.Module) -> None:
        """Moves each value of the state dict towards the model's."""
        new = model.state_dict()
        with torch.no_grad():
            for name, value in self.ema.state_dict().items():
                value.copy_(value * self.decay + (1 - self.decay) * new[name].detach())


def get_state_dict(model: Any) -> dict[str, Tensor]:
    """Of a model, or of what :class:`ModelEma` holds."""
    state: dict[str, Tensor] = getattr(model, "ema", model).state_dict()
    return state


def accuracy(output: Tensor, target: Tensor, topk: Iterable[int] = (1,)) -> list[Tensor]:
    """Percent of clips whose class is among the k likeliest, for each k."""
    ranks = list(topk)
    found = output.topk(max(ranks), 1).indices.eq(target[:, None]).float()
    return [found[:, :k].sum() * 100 / len(target) for k in ranks]


def _optimizer(name: str) -> type[torch.optim.Optimizer]:
    """An optimizer of timm that the scripts import and these rows do not use."""

    def refuse(self: Any, *args: Any, **settings: Any) -> None:
        raise NotImplementedError(f"{name} of timm has no stand-in")

    return type(name, (torch.optim.Optimizer,), {"__init__": refuse})


OPTIMIZERS = {
    module: _optimizer(name)
    for module, name in {
        "adafactor": "Adafactor", "adahessian": "Adahessian", "adamp": "AdamP",
        "lookahead": "Lookahead", "nadam": "Nadam", "novograd": "NovoGrad",
        "nvnovograd": "NvNovoGrad", "radam": "RAdam", "rmsprop_tf": "RMSpropTF", "sgdp": "SGDP",
    }.items()
}  # fmt: skip
