"""What a forward pass leaves for the backward pass, counted on tensors without values."""

from __future__ import annotations

import gc
from typing import Any, Literal
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from benchmarks.common.workload import Masking
from videomae_fast import MAEConfig, MaskedAutoencoder, Masks, MaskSpec
from videomae_fast.models.transformer import set_recompute
from videomae_fast.ops.registry import forced

Keeping = Literal["all", "recompute", "blocks"]
"""Everything; what ``--recompute`` keeps; what ``--activation-checkpointing`` keeps."""


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of what was made within and is still there."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: Any = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            if isinstance(each, Tensor):
                storage = each.untyped_storage()
                self.made[storage] = storage.nbytes()
        return out

    def total(self) -> int:
        """Bytes that are there now."""
        gc.collect()
        return int(sum(self.made.values()))


def kept_bytes(config: MAEConfig, keeping: Keeping, clips: int, masking: Masking = "dual") -> int:
    """Bytes that a forward pass in bf16 of so many clips leaves for the backward pass.

    Triton must be interpreted (``TRITON_INTERPRET=1``), else it refuses tensors on the CPU.
    """
    spec = MaskSpec() if masking == "dual" else MaskSpec(decoder="none")
    masks = Masks.from_seeds(torch.arange(clips), config.grid, spec)
    plain_init = patch("torch.nn.init.trunc_normal_", lambda tensor, **_: tensor)
    as_on_a_gpu = forced("auto", linear="torch", attention="reference")
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    with FakeTensorMode(allow_non_fake_inputs=True), plain_init, as_on_a_gpu:
        model = MaskedAutoencoder(config, activation_checkpointing=keeping == "blocks")
        set_recompute(model, keeping == "recompute")
        frames = torch.zeros(clips, config.frames, height, width, 3, dtype=torch.uint8)
        with Alive() as alive, torch.autocast("cpu", torch.bfloat16):
            out = model(frames, masks, gradient_scale=1.0)
            total: int = alive.total()
        assert out.root is not None
    return total


def per_clip(config: MAEConfig, keeping: Keeping, masking: Masking = "dual") -> float:
    """Bytes of a clip, without what there is once per step, as weights in bf16."""
    more, less = (kept_bytes(config, keeping, clips, masking) for clips in (3, 1))
    return (more - less) / 2
