"""Code that goes on from the official one under its names: action detection and AdaptFormer.

    python -m benchmarks.checkouts.forks ava FOLDER RESULT.json

Their models are built tiny in a process of their own; they are refused in a sentence, or compute
the same accelerated.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.checkouts import packages
from benchmarks.checkouts.pairs import ROOT, TOLERANCE, relative
from benchmarks.checkouts.rows import Row
from videomae_fast import accelerate
from videomae_fast.errors import AccelerationError

SIZES = {"embed_dim": 64, "depth": 2, "num_heads": 2, "num_classes": 5, "all_frames": 4}
NAMES = {
    "ava": "VideoMAE-Action-Detection: VisionTransformer",
    "adaptformer": "AdaptFormer: VisionTransformer with adapters",
}


class MeanOverRegions(nn.Module):
    """In the place of a pooler that only has CUDA code: every region is the whole picture."""

    def forward(self, features: Tensor, regions: Any) -> Tensor:
        return features


def ava(folder: Path) -> tuple[nn.Module, Callable[[Any], Tensor]]:
    """The detector of MCG-NJU/VideoMAE-Action-Detection, and a loss of its features."""
    sys.path.insert(0, str(folder))
    sys.modules["alphaction._custom_cuda_ext"] = ModuleType("alphaction._custom_cuda_ext")
    module = importlib.import_module("modeling_finetune")
    model = module.VisionTransformer(img_size=112, qkv_bias=True, init_scale=1.0, **SIZES)
    model.pooler = MeanOverRegions()
    clips = torch.randn(2, 3, 4, 112, 112, generator=torch.Generator().manual_seed(1))
    return model, lambda m: m.forward_features(clips, None).square().mean()


def adaptformer(folder: Path) -> tuple[nn.Module, Callable[[Any], Tensor]]:
    """The classifier of ShoufaChen/AdaptFormer with parallel adapters, and a loss."""
    package = ModuleType("adaptformer_models")
    package.__path__ = [str(folder / "models")]
    sys.modules["adaptformer_models"] = package
    module = importlib.import_module("adaptformer_models.vit_video")
    tuning = SimpleNamespace(
        ffn_adapt=True, ffn_option="parallel", ffn_adapter_layernorm_option="none",
        ffn_adapter_init_option="lora", ffn_adapter_scalar="0.1", ffn_num=8, d_model=64,
        vpt_on=False, vpt_num=0,
    )  # fmt: skip
    model = module.VisionTransformer(
        img_size=32, qkv_bias=True, init_scale=1.0, tuning_config=tuning, **SIZES
    )
    clips = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    return model, lambda m: m(clips).square().mean()


def compared(name: str, model: nn.Module, loss: Callable[[Any], Tensor]) -> Row:
    """Accelerates a model; where that is not refused, its loss and gradients are compared."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():  # adapters begin as zero
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    twin = copy.deepcopy(model)
    try:
        accelerate(model)
    except AccelerationError as error:
        return Row(name, "refused", str(error))
    values, gradients = [], []
    for one in (twin, model):
        torch.manual_seed(0)
        value = loss(one)
        torch.autograd.backward(value)
        values.append(float(value.detach()))
        gradients.append(_gradient(one))
    apart = float((gradients[1] - gradients[0]).norm() / gradients[0].norm())
    numbers = {"loss apart by": relative(values[:1], values[1:]), "gradients apart by": apart}
    equal = all(value <= TOLERANCE for value in numbers.values())
    return Row(name, "equal" if equal else "FAILED", "" if equal else "another function", numbers)


def _gradient(model: nn.Module) -> Tensor:
    """Of all parameters, [values]; zero where there is none."""
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return torch.cat([part.flatten() for part in parts])


def row(kind: str, checkout: Path, folder: Path) -> Row:
    """Builds and compares in a child process."""
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / f"{kind}.json"
    result.unlink(missing_ok=True)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.checkouts.forks", kind, str(checkout), str(result)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if not result.exists():
        return Row(NAMES[kind], "FAILED", " ".join(done.stderr.splitlines()[-2:])[-400:])
    return Row(**json.loads(result.read_text(encoding="utf-8")))


def main(words: list[str]) -> int:
    kind, checkout, result = words
    packages.install("cpu")
    torch.manual_seed(0)
    model, loss = {"ava": ava, "adaptformer": adaptformer}[kind](Path(checkout))
    found = compared(NAMES[kind], model, loss)
    Path(result).write_text(json.dumps(asdict(found)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
