"""A training step of a tree of any age, recorded by fakes: a child process.

    python benchmarks/gpu/traced_tree.py TREE CALLS_FILE SIZE BATCH [shadow-weights]

Trees differ in all but the package's public face, so it uses nothing else of them: the model in
bf16 under autocast, its loss with the gradient, the norm of all gradients, fused AdamW. CALLS_FILE
has the recorder, and is of the tree that asks. Prints JSON.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

TREE = Path(sys.argv[1]).resolve()
# An editable installation would put itself before any path
sys.meta_path[:] = [one for one in sys.meta_path if "editable" not in type(one).__module__]
sys.path.insert(0, str(TREE))

import videomae_fast  # noqa: E402
from videomae_fast import MAEConfig, MaskedAutoencoder, Masks, MaskSpec  # noqa: E402

assert TREE in Path(str(videomae_fast.__file__)).resolve().parents, f"not of {TREE}"
try:
    from videomae_fast.ops.registry import forced
except ImportError:  # its former place
    from videomae_fast.ops._dispatch import forced  # type: ignore[import-untyped,no-redef]


class Kept(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of what was made within and is still there."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: Any = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            if isinstance(each, torch.Tensor):
                self.made[each.untyped_storage()] = each.untyped_storage().nbytes()
        return out

    def total(self) -> int:
        gc.collect()
        return int(sum(self.made.values()))


class Step:
    """A step like that of the training loop, on a CPU's fake tensors."""

    def __init__(self, size: Any, batch: int, *, shadow_weights: bool) -> None:
        config = MAEConfig.from_size(size)
        spec = MaskSpec()
        self.tokens = float(batch * spec.counts(config.grid).loss)
        self.model = MaskedAutoencoder(config)
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3, fused=True)
        self.shadows: Any = None
        if shadow_weights:
            from videomae_fast.models.matmul_parameters import matmul_parameters
            from videomae_fast.training.optimizer.shadows import Shadows

            self.shadows = Shadows(self.model, matmul_parameters(self.model))
        self.frames = torch.empty((batch, 16, 224, 224, 3), dtype=torch.uint8)
        self.seeds, self.ok = torch.arange(batch), torch.ones(batch, dtype=torch.bool)
        self.grid, self.spec = config.grid, spec

    def forward(self) -> Any:
        masks = Masks.from_seeds(self.seeds, self.grid, self.spec).weighted(self.ok)
        with torch.autocast("cpu", torch.bfloat16):
            return self.model(self.frames, masks, gradient_scale=1 / self.tokens)

    def update(self) -> None:
        with torch.no_grad():
            if self.shadows is not None:
                self.shadows.hand_over()
            grads = [p.grad for p in self.parameters if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(grads)
            setattr(self.optimizer, "grad_scale", torch.ones(()))  # noqa: B010
            setattr(self.optimizer, "found_inf", (~norm.isfinite()).float())  # noqa: B010
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.shadows is not None:
                self.shadows.write()


def main(words: list[str]) -> None:
    """Prints the calls of the second step, by which the optimizer has its state."""
    path, batch = words[0], words[2]
    size: Any = words[1]
    spec = importlib.util.spec_from_file_location("calls", path)
    assert spec is not None
    assert spec.loader is not None
    calls = importlib.util.module_from_spec(spec)
    sys.modules["calls"] = calls
    spec.loader.exec_module(calls)
    plain = patch("torch.nn.init.trunc_normal_", lambda tensor, **_: tensor)
    MaskSpec().counts(MAEConfig.from_size(size).grid)  # kept; it reads values, which fakes lack
    with FakeTensorMode(), plain, forced("auto", linear="torch", attention="triton"):
        step = Step(size, int(batch), shadow_weights="shadow-weights" in words)
        for _ in range(2):
            recorder = calls.Recorder()
            with Kept() as kept:
                out = step.forward()
                bytes_kept = kept.total()
            out.backward()
            step.update()
            del out
            with recorder:
                recorder.phase = "forward"
                out = step.forward()
                recorder.phase = "backward"
                out.backward()
                recorder.phase = "update"
                step.update()
            del out
    found = {"kept": bytes_kept, "calls": [asdict(call) for call in recorder.calls]}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[2:])
